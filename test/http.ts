import type { FastifyInstance, InjectOptions } from 'fastify'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect } from 'vitest'
import { parseWithExactKeys } from '../src/core/exact-keys.ts'
import { requireMigrated } from '../src/db/migrate.ts'
import { loadMigrations } from '../src/db/migrations.ts'
import { type AppOptions, buildApp } from '../src/http/app.ts'
import { type Engine, engines, type OpenOptions, TEST_AUTH, type TestDatabase } from './harness.ts'

// biome-ignore lint/suspicious/noExplicitAny: what a server answers is checked by the tests themselves
export type Json = any

export type Answer = {
  status: number
  headers: Record<string, string | undefined>
  /** The body's JSON; undefined when there is no body. */
  body: Json
  text: string
}

export type Api = {
  app: FastifyInstance
  opened: TestDatabase
  /** What the HTTP layer logged, as pino writes it. */
  logged: Json[]
  /** Sends a request. A body that is not text or bytes is written as JSON; `headers` come over the usual ones. */
  call(method: string, url: string, body?: unknown, headers?: Record<string, string>): Promise<Answer>
  /** A new thread's id. */
  newThread(body?: object): Promise<string>
}

export type ApiOptions = OpenOptions & Partial<AppOptions>

/** A suite on the HTTP API of each engine that is there; the store is opened once for the suite. */
export function describeApi(
  name: string,
  suite: (api: Api, engine: Engine) => void,
  options: ApiOptions = {},
): void {
  for (const engine of engines) {
    describe.skipIf(!engine.available)(`${name} on ${engine.name}`, () => {
      const api = {} as Api
      beforeAll(async () => {
        Object.assign(api, await openApi(engine, options))
      })
      afterAll(async () => {
        await api.app?.close()
        await api.opened?.close()
      })
      suite(api, engine)
    })
  }
}

export async function openApi(engine: Engine, options: ApiOptions = {}): Promise<Api> {
  const opened = await engine.open(options)
  const logged: Json[] = []
  const log = pino({ level: 'debug' }, { write: (line: string) => void logged.push(JSON.parse(line)) })
  const migrations = await loadMigrations()
  const revision = async () => {
    await requireMigrated(opened.database, migrations)
    return migrations.at(-1)?.revision ?? 'none'
  }
  const services = { ...opened.tb, revision }
  const auth = { ...TEST_AUTH, ...options.auth }
  const app = await buildApp(services, {
    bodyLimitBytes: 1_000_000,
    uploadLimitBytes: 1_000_000,
    ...options,
    auth,
    log,
  })
  const call: Api['call'] = async (method, url, body, headers = {}) => {
    const json = body === undefined ? {} : { 'content-type': 'application/json' }
    const answer = await app.inject({
      method: method as InjectOptions['method'] & string,
      url,
      payload: typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body),
      headers: { ...json, ...headers },
    })
    // stored bytes are what somebody says that they are
    const isStored = answer.headers['accept-ranges'] === 'bytes'
    const isJson = !isStored && String(answer.headers['content-type']).startsWith('application/json')
    const result: Answer = {
      status: answer.statusCode,
      headers: answer.headers as Answer['headers'],
      // the engine's own reader confuses keys with escapes
      body: isJson && answer.body !== '' ? parseWithExactKeys(answer.body) : undefined,
      text: answer.body,
    }
    if (result.status >= 400 && method !== 'HEAD') expectErrorShape(result)
    return result
  }
  const newThread = async (body: object = {}) => (await call('POST', '/api/threads', body)).body.id
  return { app, opened, logged, call, newThread }
}

/** `{error: {code, message, details?, request_id}}` and nothing else, under the request's id. */
export function expectErrorShape({ headers, body }: Pick<Answer, 'headers' | 'body'>): void {
  expect(headers['content-type']).toMatch(/^application\/json/)
  expect(Object.keys(body)).toEqual(['error'])
  const { code, message, details, request_id, ...rest } = body.error
  expect(rest).toEqual({})
  expect(code).toMatch(/^[a-z_]+$/)
  expect(message).toMatch(/\S/)
  if (details !== undefined) expect(details).toBeTypeOf('object')
  expect(request_id).toBe(headers['x-request-id'])
}

/** The code and message of a refusal, for `toMatchObject` and the like. */
export function refusal({ status, body }: Answer) {
  return { status, code: body?.error?.code as unknown, message: body?.error?.message as unknown }
}

export const idsOf = (items: { id: string }[]) => items.map(({ id }) => id).sort()

/** `found` for what is the caller's own, 404 for all else, whoever has it. */
export const orMissing = (found: number, own: unknown) => (own === undefined ? 404 : found)

export const MISSING_ID = '00000000-0000-7000-8000-000000000000'
export const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/
export const INSTANT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/
