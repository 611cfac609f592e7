import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { postgresUrl } from './harness.ts'

/** A database of its own on the PostgreSQL of the run, for what concerns all of one: extensions, rights. */
export type OwnDatabase = {
  name: string
  /** As the administrator. */
  url: string
  /** As a role of the database's name, its owner, which may create no extension. */
  ownerUrl: string
  run(...statements: string[]): Promise<void>
  drop(): Promise<void>
}

export async function createOwnDatabase(): Promise<OwnDatabase> {
  const name = `threadbase_own_${randomBytes(6).toString('hex')}`
  const urlOf = (database: string, user?: string) => {
    const url = new URL(String(postgresUrl))
    url.pathname = `/${database}`
    if (user !== undefined) {
      url.username = user
      url.password = 'p'
    }
    return url.href
  }
  const runOn = async (database: string, statements: string[]) => {
    const client = new pg.Client({ connectionString: urlOf(database) })
    await client.connect()
    try {
      for (const statement of statements) await client.query(statement)
    } finally {
      await client.end()
    }
  }
  await runOn('postgres', [`create role ${name} login password 'p'`, `create database ${name} owner ${name}`])
  return {
    name,
    url: urlOf(name),
    ownerUrl: urlOf(name, name),
    run: (...statements) => runOn(name, statements),
    drop: () => runOn('postgres', [`drop database ${name} with (force)`, `drop role ${name}`]),
  }
}
