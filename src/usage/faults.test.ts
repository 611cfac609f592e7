import { randomUUID } from 'node:crypto'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { runChild } from '../../test/child.ts'
import { engines, makeTempDir, postgresUrl, TEST_USAGE } from '../../test/harness.ts'
import { startTcpProxy } from '../../test/tcp-proxy.ts'
import { silentLog } from '../core/log.ts'
import { openPostgres } from '../db/postgres.ts'
import { createJsonUsage } from './json/service.ts'
import type { UsageService } from './schema.ts'
import { createUsageService } from './service.ts'

const audit = { record: async () => {} }
const newScope = () => ({ userId: `u-${randomUUID()}` })
const UNAVAILABLE = { code: 'unavailable' }

describe.skipIf(postgresUrl === null)('a database that is gone', () => {
  test('refuses, and nothing is counted', async () => {
    const postgres = engines.find(({ name }) => name === 'postgres')
    const opened = await postgres?.open()
    if (opened === undefined) throw new Error('no postgres')
    const { hostname, port } = new URL(String(postgresUrl))
    const proxy = await startTcpProxy({ host: hostname, port: Number(port) })
    const url = Object.assign(new URL(String(postgresUrl)), { host: `127.0.0.1:${proxy.port}` }).href
    const database = await openPostgres({
      url,
      schema: opened.database.schema,
      log: silentLog,
      queryTimeoutS: 1,
    })
    const usage = createUsageService(database, { audit: audit as never, settings: TEST_USAGE })
    const scope = newScope()
    const { receipt } = await usage.consume(scope)
    proxy.cut()
    const calls = [
      usage.consume(scope),
      usage.consume(newScope()),
      usage.refund(scope, receipt),
      usage.read(scope),
      usage.set({ userId: 'a', via: 'cli' }, scope.userId, { tier: 'pro' }),
      usage.totals(scope),
    ]
    for (const result of await Promise.allSettled(calls))
      expect(result).toMatchObject({ status: 'rejected', reason: UNAVAILABLE })
    proxy.restore()
    expect(await opened.tb.usage.read(scope)).toMatchObject({ tier: 'free', dailyUsed: 1 })
    await database.close()
    await proxy.close()
    await opened.close()
  })
})

for (const engine of engines) {
  describe.skipIf(!engine.available)(`rows of usage under row level security on ${engine.name}`, () => {
    test('a user reads their own, and writes none', async () => {
      const { database, tb, close } = await engine.open({ rls: 'enforce' })
      const [a, b] = [newScope(), newScope()]
      await tb.usage.consume(a, 2)
      await tb.usage.consume(b, 3)
      const { id } = await tb.threads.create(a)
      const meta = { usage: { model: 'm', input_tokens: 1, output_tokens: 2 } }
      await tb.messages.append(a, id, [{ role: 'assistant', content: 'x', meta }])
      expect(await tb.usage.totals(a)).toMatchObject([{ model: 'm', calls: 1 }])
      expect(await tb.usage.totals(b)).toEqual([])
      const ofA = database.forUser(a.userId)
      const table = sql.table('usage')
      const { rows } = await sql`select user_id, daily_used from ${table}`.execute(ofA)
      expect(rows).toEqual([{ user_id: a.userId, daily_used: 2 }])
      await sql`update ${table} set daily_limit = -1, daily_used = 0`.execute(ofA).catch(() => {})
      await sql`delete from ${table}`.execute(ofA).catch(() => {})
      const inserting = sql`insert into ${table} (user_id, tier) values ('new', 'enterprise')`.execute(ofA)
      await expect(inserting).rejects.toThrow()
      expect(await tb.usage.read(a)).toMatchObject({ dailyUsed: 2, dailyLimit: 10 })
      expect(await tb.usage.read(b)).toMatchObject({ dailyUsed: 3 })
      await close()
    })

    test('totals are read along their index', async () => {
      const { database, tb, close } = await engine.open()
      const scope = newScope()
      const { id } = await tb.threads.create(scope)
      await sql`
        insert into ${sql.table('messages')} (user_id, thread_id, seq, id, role, content, digest, meta)
        select ${scope.userId}, ${id}::uuid, i, gen_random_uuid(), 'user', '1', '\\x00',
               case when i % 100 = 0 then '{"usage": []}' else '{}' end::jsonb
          from generate_series(1, 20000) i`.execute(database.db)
      await sql`analyze ${sql.table('messages')}`.execute(database.db)
      const { rows } = await sql<Record<string, string>>`
        explain select * from ${sql.table('messages')} m where m.user_id = ${scope.userId}
           and m.created_at >= now() - interval '1 day' and m.created_at < now() + interval '1 day'
           and m.meta ?| '{usage,usage_metadata}'::text[]`.execute(database.db)
      expect(JSON.stringify(rows)).toContain('messages_with_usage')
      await close()
    })
  })
}

describe('files of usage', () => {
  let dir: string
  let usage: UsageService
  beforeAll(async () => {
    dir = await makeTempDir()
    const messagesOf = async function* () {}
    usage = createJsonUsage({ dir, settings: TEST_USAGE, audit, messagesOf })
  })
  afterAll(() => rm(dir, { recursive: true, force: true }))
  const pathOf = (userId: string) => join(dir, 'usage', userId, 'usage.json')
  const put = async (userId: string, text: string) => {
    await mkdir(join(dir, 'usage', userId), { recursive: true })
    await writeFile(pathOf(userId), text)
  }

  test('two processes on one file count together', async () => {
    const { userId } = newScope()
    const children = [1, 2].map(() => runChild('consume-usage.ts', { dir, userId, times: 32 }))
    const codes = (await Promise.all(children.map((child) => child.rest()))).flat(2)
    expect(codes.filter((code) => code === 'counted')).toHaveLength(10)
    expect(codes.filter((code) => code === 'quota_exceeded')).toHaveLength(54)
    expect(JSON.parse(await readFile(pathOf(userId), 'utf8'))).toMatchObject({
      daily_used: 10,
      total_queries: 10,
    })
    expect(await readdir(join(dir, 'usage', userId))).toEqual(['usage.json'])
  })

  test('a file of a council is counted on in its own spelling, and nothing in it is lost', async () => {
    const { userId } = newScope()
    const today = new Date().toISOString().slice(0, 10)
    const old = {
      user_id: userId,
      tier: 'free',
      daily_count: 9,
      daily_limit: 10,
      monthly_count: 20,
      monthly_limit: 100,
      last_daily_reset: today,
      last_monthly_reset: today,
      notes: { n: 1 },
    }
    await put(userId, JSON.stringify(old))
    expect((await usage.consume({ userId })).usage).toMatchObject({ dailyUsed: 10, monthlyUsed: 21 })
    await expect(usage.consume({ userId })).rejects.toMatchObject({ code: 'quota_exceeded' })
    const text = await readFile(pathOf(userId), 'utf8')
    expect(JSON.parse(text)).toEqual({ ...old, daily_count: 10, monthly_count: 21, total_queries: 1 })
    expect(text).toContain('\n  "tier": "free"')
    await usage.set({ userId: 'a', via: 'cli' }, userId, { tier: 'pro' })
    expect(JSON.parse(await readFile(pathOf(userId), 'utf8'))).toMatchObject({
      tier: 'pro',
      daily_limit: 100,
      monthly_limit: 3_000,
    })
  })

  test.each(['', '{"daily_used": 1', '[]', '{"daily_used": "many"}', '{"other": 1}'])(
    'a file that is none (%j) refuses until somebody mends it, and stays as it is',
    async (text) => {
      const scope = newScope()
      await put(scope.userId, text)
      const actor = { userId: 'a', via: 'cli' } as const
      for (const call of [
        () => usage.consume(scope),
        () => usage.read(scope),
        () => usage.refund(scope, { n: 1, day: '2026-01-01', month: '2026-01-01' }),
        () => usage.set(actor, scope.userId, { tier: 'pro' }),
      ]) {
        await expect(call()).rejects.toMatchObject(UNAVAILABLE)
        await expect(call()).rejects.toThrow(`usage/${scope.userId}/usage.json cannot be read`)
      }
      expect(await readFile(pathOf(scope.userId), 'utf8')).toBe(text)
      await rm(join(dir, 'usage', scope.userId), { recursive: true })
    },
  )

  test.each(['../../etc/passwd', '..', '.', '.hidden', 'a/b', 'a\\b', 'a\nb', 'x'.repeat(201)])(
    'a user %j leads nowhere',
    async (userId) => {
      const before = await readdir(join(dir, '..'))
      for (const call of [usage.consume, usage.read])
        await expect(call({ userId })).rejects.toMatchObject({ code: 'invalid_input' })
      const setting = usage.set({ userId: 'a', via: 'cli' }, userId, { tier: 'pro' })
      await expect(setting).rejects.toMatchObject({ code: 'invalid_input' })
      expect(await readdir(join(dir, '..'))).toEqual(before)
    },
  )

  test('a directory that is in the way refuses', async () => {
    const scope = newScope()
    await mkdir(pathOf(scope.userId), { recursive: true })
    await expect(usage.consume(scope)).rejects.toMatchObject(UNAVAILABLE)
    // users see what is said: where the directory is is none of their concern
    const message = `usage/${scope.userId}/usage.json cannot be read (EISDIR)`
    await expect(usage.read(scope)).rejects.toMatchObject({ ...UNAVAILABLE, message })
    await rm(join(dir, 'usage', scope.userId), { recursive: true })
    const file = join(dir, 'file')
    await writeFile(file, '')
    const elsewhere = createJsonUsage({
      dir: file,
      settings: TEST_USAGE,
      audit,
      messagesOf: async function* () {},
    })
    for (const call of [elsewhere.consume, elsewhere.read])
      await expect(call(scope)).rejects.toMatchObject(UNAVAILABLE)
  })
})
