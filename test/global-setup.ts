import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import type { TestProject } from 'vitest/node'
import { makeTemplate } from '../scripts/make-template.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** The prepared database that embedded stores of the tests start from. */
    templateFile: string
    /** A directory of this run's own, for what its test files share. */
    runDirectory: string
    /** A database of this run's own; null when there is no PostgreSQL. */
    postgresUrl: string | null
    /** The Redis of THREADBASE_TEST_REDIS, which others may use, too; null when there is none. */
    redisUrl: string | null
    /** The S3 server of THREADBASE_TEST_S3, which others may use, too; null when there is none. */
    s3Endpoint: string | null
  }
}

const TEMPLATE = fileURLToPath(new URL('../node_modules/.cache/threadbase/template.tar.gz', import.meta.url))

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  if (!existsSync(TEMPLATE)) await makeTemplate(TEMPLATE)
  project.provide('templateFile', TEMPLATE)
  const runDirectory = await mkdtemp(join(tmpdir(), 'threadbase-test-run-'))
  project.provide('runDirectory', runDirectory)
  setupRedis(project)
  setupS3(project)
  const dropDatabase = await setupPostgres(project)
  return async () => {
    await dropDatabase()
    await rm(runDirectory, { recursive: true, force: true })
  }
}

async function setupPostgres(project: TestProject): Promise<() => Promise<void>> {
  const adminUrl = process.env.THREADBASE_TEST_POSTGRES
  if (adminUrl === undefined || adminUrl === '') {
    if (process.env.THREADBASE_TEST_REQUIRE === 'all') {
      throw new Error('THREADBASE_TEST_REQUIRE=all, but THREADBASE_TEST_POSTGRES names no PostgreSQL')
    }
    console.warn(
      '\n*** PostgreSQL suites are SKIPPED: set THREADBASE_TEST_POSTGRES=postgres://… (scripts/test-postgres.sh starts one) ***\n',
    )
    project.provide('postgresUrl', null)
    return async () => {}
  }
  const name = `threadbase_test_${randomBytes(6).toString('hex')}`
  await runAsAdmin(adminUrl, `create database ${name}`)
  const url = new URL(adminUrl)
  url.pathname = `/${name}`
  project.provide('postgresUrl', url.href)
  return () => runAsAdmin(adminUrl, `drop database if exists ${name} with (force)`)
}

function setupRedis(project: TestProject): void {
  const url = process.env.THREADBASE_TEST_REDIS
  if (url !== undefined && url !== '') {
    project.provide('redisUrl', url)
    return
  }
  if (process.env.THREADBASE_TEST_REQUIRE === 'all') {
    throw new Error('THREADBASE_TEST_REQUIRE=all, but THREADBASE_TEST_REDIS names no Redis')
  }
  console.warn(
    '\n*** Redis suites are SKIPPED: set THREADBASE_TEST_REDIS=redis://… (scripts/test-redis.sh starts one) ***\n',
  )
  project.provide('redisUrl', null)
}

function setupS3(project: TestProject): void {
  const endpoint = process.env.THREADBASE_TEST_S3
  if (endpoint !== undefined && endpoint !== '') {
    project.provide('s3Endpoint', endpoint)
    return
  }
  if (process.env.THREADBASE_TEST_REQUIRE === 'all') {
    throw new Error('THREADBASE_TEST_REQUIRE=all, but THREADBASE_TEST_S3 names no S3 server')
  }
  console.warn(
    '\n*** S3 suites are SKIPPED: set THREADBASE_TEST_S3=http://… (scripts/test-s3.sh starts one) ***\n',
  )
  project.provide('s3Endpoint', null)
}

async function runAsAdmin(url: string, statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query(statement)
  } finally {
    await client.end()
  }
}
