import { hash } from 'node:crypto'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { engines, openServices, recordingLog, type TestDatabase } from '../../../test/harness.ts'
import type { Threadbase } from '../../threadbase.ts'
import { createUseCounter } from './use-counter.ts'

const ROOT = { userId: 'root', via: 'cli' } as const

for (const engine of engines) {
  describe.skipIf(!engine.available)(`API keys on ${engine.name}`, () => {
    let opened: TestDatabase
    let tb: Threadbase
    let keys: Threadbase['identity']['keys']
    let count = 0
    beforeAll(async () => {
      opened = await engine.open({ auth: { mode: 'accounts' } })
      tb = opened.tb
      keys = tb.identity.keys
    })
    afterAll(() => opened?.close())
    const newScope = async () => {
      const { id } = await tb.identity.users.create(ROOT, {
        username: `user${++count}`,
        password: 'password',
      })
      return { userId: id }
    }

    test('a key is shown once; what is kept of it opens nothing', async () => {
      const scope = await newScope()
      const { apiKey, key } = await keys.create(scope, ROOT, { name: 'Büro' })
      expect(key).toMatch(/^tb_[\w-]{43}$/)
      expect(apiKey).toEqual({
        id: expect.any(String),
        userId: scope.userId,
        name: 'Büro',
        prefix: key.slice(0, 11),
        scopes: ['read', 'write'],
        createdAt: expect.any(Date),
        expiresAt: null,
        revokedAt: null,
        lastUsedAt: null,
        totalUses: 0,
      })
      const { rows } = await sql<{ line: string; key_hash: Buffer }>`
        select row_to_json(k)::text as line, key_hash from ${sql.table('api_keys')} k where id = ${apiKey.id}::uuid`.execute(
        opened.database.db,
      )
      expect(rows[0]?.line).not.toContain(key.slice(11))
      expect(Buffer.from(rows[0]?.key_hash ?? []).equals(hash('sha256', key, 'buffer'))).toBe(true)
      expect(await tb.identity.ofKey(key)).toEqual({
        userId: scope.userId,
        via: 'key',
        keyId: apiKey.id,
        scopes: ['read', 'write'],
        isSuperuser: false,
      })
    })

    test('what is no key, or a little another one, is refused', async () => {
      const { key } = await keys.create(await newScope(), ROOT, { name: 'k' })
      const changed = [
        key.slice(0, -1),
        `${key}A`,
        key.toUpperCase(),
        key.slice(3),
        `tb_${'A'.repeat(43)}`,
        '',
        'tb_',
      ]
      for (const wrong of [...changed, `${key}\n`, ` ${key}`, 'tb_\0'])
        await expect(keys.authenticate(wrong), wrong).rejects.toMatchObject({
          code: 'unauthorized',
          details: { reason: 'invalid' },
        })
    })

    test.each([
      ['no name', { name: '' }],
      ['a long name', { name: 'x'.repeat(256) }],
      ['no scopes', { name: 'k', scopes: [] }],
      ['an unknown scope', { name: 'k', scopes: ['root'] }],
      ['a flow without an id', { name: 'k', scopes: ['flow:'] }],
      ['an end in the past', { name: 'k', expiresAt: new Date(Date.now() - 1) }],
      ['an end that is none', { name: 'k', expiresAt: '2030-02-31T00:00:00Z' }],
      ['an end in words', { name: 'k', expiresAt: 'tomorrow' }],
    ])('one with %s is refused', async (_, input) => {
      await expect(keys.create(await newScope(), ROOT, input)).rejects.toMatchObject({
        code: 'invalid_input',
      })
    })

    test('nobody’s key is not made', async () => {
      await expect(keys.create({ userId: 'nobody' }, ROOT, { name: 'k' })).rejects.toMatchObject({
        code: 'not_found',
      })
    })

    test('a key ends at its time, also when it is remembered', async () => {
      const expiresAt = new Date(Date.now() + 60_000)
      const { key, apiKey } = await keys.create(await newScope(), ROOT, { name: 'k', expiresAt })
      expect(apiKey.expiresAt).toEqual(expiresAt)
      await keys.authenticate(key)
      vi.useFakeTimers({ toFake: ['Date'], now: expiresAt.getTime() })
      try {
        const refused = { code: 'unauthorized', details: { reason: 'expired' } }
        await expect(keys.authenticate(key)).rejects.toMatchObject(refused)
      } finally {
        vi.useRealTimers()
      }
    })

    test('a revoked key is refused at once, and is listed only when asked for', async () => {
      const scope = await newScope()
      const made = []
      for (let i = 0; i < 5; i++) made.push(await keys.create(scope, ROOT, { name: `k${i}` }))
      const [first] = made
      if (first === undefined) throw new Error('made none')
      await keys.authenticate(first.key)
      expect(await keys.revoke(scope, ROOT, first.apiKey.id)).toBe(true)
      expect(await keys.revoke(scope, ROOT, first.apiKey.id)).toBe(false)
      await expect(keys.authenticate(first.key)).rejects.toMatchObject({ code: 'unauthorized' })
      const ids = made.map(({ apiKey }) => apiKey.id).reverse()
      const page = await keys.list(scope, { limit: 3 })
      const rest = await keys.list(scope, { limit: 3, cursor: page.nextCursor })
      expect([...page.items, ...rest.items].map(({ id }) => id)).toEqual(ids.slice(0, 4))
      expect(rest.nextCursor).toBeUndefined()
      expect((await keys.list(scope, { includeRevoked: true })).items.map(({ id }) => id)).toEqual(ids)
      expect((await keys.getKey(scope, first.apiKey.id)).revokedAt).toBeInstanceOf(Date)
      const log = (await tb.audit.list({ userId: scope.userId, action: 'api_key_revoked' })).items
      expect(log.map(({ target }) => target)).toEqual([`api_key ${first.apiKey.id}`])
    })

    test('a user has a hundred keys at most; a revoked one makes room', async () => {
      const scope = await newScope()
      const made = await Promise.all(
        Array.from({ length: 100 }, () => keys.create(scope, ROOT, { name: 'k' })),
      )
      await expect(keys.create(scope, ROOT, { name: 'k' })).rejects.toMatchObject({ code: 'conflict' })
      await keys.revoke(scope, ROOT, String(made[0]?.apiKey.id))
      await keys.create(scope, ROOT, { name: 'k' })
      await keys.create(await newScope(), ROOT, { name: 'of another' })
    })

    test('uses are counted, in one statement for many, and what is left is written at the end', async () => {
      const scope = await newScope()
      const second = await openServices(opened.database, { auth: { mode: 'accounts' } })
      const made = [
        await keys.create(scope, ROOT, { name: 'a' }),
        await keys.create(scope, ROOT, { name: 'b' }),
      ]
      for (const { key } of made)
        for (let i = 0; i < 50; i++) await (i % 2 === 0 ? keys : second.identity.keys).authenticate(key)
      const totals = async () => (await keys.list(scope)).items.map(({ totalUses }) => totalUses)
      await keys.flushUses()
      expect(await totals()).toEqual([25, 25])
      await second.identity.close()
      expect(await totals()).toEqual([50, 50])
      const [{ lastUsedAt } = {}] = (await keys.list(scope)).items
      expect(Date.now() - Number(lastUsedAt)).toBeLessThan(60_000)
      await keys.flushUses()
      expect(await totals()).toEqual([50, 50])
    })
  })
}

describe('uses of keys', () => {
  const usesOf = (writes: { id: string; uses: number }[][]) =>
    writes.map((write) => Object.fromEntries(write.map(({ id, uses }) => [id, uses])))

  test('of ten thousand requests are few writes, and none when there was no request', async () => {
    const writes: { id: string; uses: number }[][] = []
    const counter = createUseCounter(
      async (uses) => void writes.push(structuredClone(uses)),
      recordingLog().log,
    )
    for (let i = 0; i < 10_000; i++) counter.count('u', `k${i % 3}`)
    await counter.flush()
    await counter.flush()
    await counter.close()
    expect(usesOf(writes)).toEqual([{ k0: 3_334, k1: 3_333, k2: 3_333 }])
  })

  test('that cannot be written are kept for the next time, with those that come meanwhile', async () => {
    const writes: { id: string; uses: number }[][] = []
    let away = true
    const write = async (uses: { id: string; uses: number }[]) => {
      if (away) {
        counter.count('u', 'a')
        throw new Error('no database')
      }
      writes.push(structuredClone(uses))
    }
    const { log, logged } = recordingLog()
    const counter = createUseCounter(write, log)
    counter.count('u', 'a')
    counter.count('u', 'b')
    await counter.flush()
    away = false
    await counter.close()
    expect(usesOf(writes)).toEqual([{ a: 2, b: 1 }])
    expect(logged.map(({ level }) => level)).toEqual(['warn'])
  })
})
