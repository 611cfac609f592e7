import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { emptyCheckpoint, uuid6 } from '@langchain/langgraph-checkpoint'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { storedHashes, sweepStaged } from '../../../test/bytes.ts'
import { gate } from '../../../test/gate.ts'
import {
  engines,
  newRedisPrefix,
  openServices,
  openTestFiles,
  redisUrl,
  s3Endpoint,
  type TestDatabase,
} from '../../../test/harness.ts'
import { makeBucket } from '../../../test/s3.ts'
import { announce, putUpload, sha256Of } from '../../../test/uploads.ts'
import type { Blobs } from '../../blobs/blobs.ts'
import { openS3 } from '../../blobs/s3.ts'
import { openRedisBus } from '../../bus/redis.ts'
import { openRedisCache } from '../../cache/redis.ts'
import { isThreadbaseError } from '../../core/errors.ts'
import { silentLog } from '../../core/log.ts'
import type { Threadbase } from '../../threadbase.ts'
import { ERASED_TABLES, TABLES_OF_BYTES } from './tables.ts'

const ROOT = { userId: 'root', via: 'library' } as const
const FORBIDDEN = { code: 'forbidden', details: { reason: 'erased' } }
const newUser = () => ({ userId: `u-${randomUUID()}` })

/** Rows of the user, by table, those left out that have none. */
async function rowsOf({ database }: TestDatabase, userId: string): Promise<Record<string, number>> {
  const found: Record<string, number> = {}
  for (const name of [...TABLES_OF_BYTES, ...ERASED_TABLES.map((table) => table.name)]) {
    const { rows } = await sql<{ n: number }>`
      select count(*)::int as n from ${sql.table(`${database.schema}.${name}`)}
       where ${sql.ref(name === 'users' ? 'id' : 'user_id')} = ${userId}`.execute(database.db)
    const n = rows[0]?.n ?? 0
    if (n > 0) found[name] = n
  }
  return found
}

const checkpointOf = (text: string) => ({
  ...emptyCheckpoint(),
  id: uuid6(0),
  channel_values: { list: [{ text: text.repeat(50) }] },
  channel_versions: { list: 1 },
})
const METADATA = { source: 'input', step: -1, parents: {} } as const

for (const engine of engines) {
  describe.skipIf(!engine.available)(`erasing a user, on ${engine.name}`, () => {
    let opened: TestDatabase
    let tb: Threadbase
    beforeAll(async () => {
      opened = await engine.open()
      tb = opened.tb
    })
    afterAll(() => opened?.close())

    const erase = (scope: { userId: string }) => tb.gdpr.erase(scope, ROOT)
    const newThread = async (scope: { userId: string }) => (await tb.threads.create(scope)).id

    test('takes all there is, in batches, and tells how much', async () => {
      const scope = newUser()
      const thread = await newThread(scope)
      const messages = Array.from({ length: 1_000 }, () => ({ role: 'user' as const, content: 'x' }))
      for (let i = 0; i < 5; i++) await tb.messages.append(scope, thread, messages)
      for (let i = 0; i < 250; i++) await newThread(scope)
      const seen: number[] = []
      const report = await tb.gdpr.erase(scope, ROOT, { onProgress: ({ rows }) => seen.push(rows) })
      expect(report).toMatchObject({
        userId: scope.userId,
        rows: { messages: 5_000, threads: 251 },
        wasErased: false,
        blobs: 0,
      })
      expect(seen).toEqual(seen.toSorted((a, b) => a - b))
      expect(seen.length).toBeGreaterThan(4)
      expect(await rowsOf(opened, scope.userId)).toEqual({})
      expect(await tb.gdpr.findTombstone(scope)).toEqual({
        userId: scope.userId,
        erasedAt: report.erasedAt,
        finishedAt: report.finishedAt,
      })
    })

    test('nobody knows: not_found; again: was erased, and nothing more', async () => {
      const scope = newUser()
      await expect(erase(scope)).rejects.toMatchObject({ code: 'not_found' })
      await expect(tb.gdpr.count(scope)).rejects.toMatchObject({ code: 'not_found' })
      expect(await tb.gdpr.findTombstone(scope)).toBeUndefined()
      await newThread(scope)
      const first = await erase(scope)
      const second = await erase(scope)
      expect(second).toMatchObject({ wasErased: true, rows: {}, blobs: 0, erasedAt: first.erasedAt })
      expect(await tb.gdpr.count(scope)).toEqual({ rows: {}, blobs: 0, blobBytes: 0 })
    })

    test('a dry run counts and removes nothing', async () => {
      const scope = newUser()
      const thread = await newThread(scope)
      await tb.artifacts.create(scope, thread, `own ${scope.userId}`)
      await tb.files.create(scope, `own ${scope.userId}`)
      const shared = `shared ${scope.userId}`
      await tb.files.create(scope, shared)
      await tb.files.create(newUser(), shared)
      expect(await tb.gdpr.count(scope)).toEqual({
        rows: { threads: 1, artifacts: 1, files: 2 },
        blobs: 1,
        blobBytes: `own ${scope.userId}`.length,
      })
      expect(await rowsOf(opened, scope.userId)).toEqual({ threads: 1, artifacts: 1, files: 2 })
    })

    test('what running work still stores is refused, and nothing comes back', async () => {
      const scope = newUser()
      const thread = await newThread(scope)
      const { checkpointer, store } = tb.forUser(scope.userId)
      const config = { configurable: { thread_id: 'graph', checkpoint_ns: '' } }
      const put = await checkpointer.put(config, checkpointOf('a'), METADATA, { list: 1 })
      await erase(scope)
      const late: [what: string, act: () => Promise<unknown>][] = [
        ['a thread', () => tb.threads.create(scope)],
        ['a thread under an id', () => tb.threads.create(scope, { id: thread })],
        ['a message', () => tb.messages.append(scope, thread, [{ role: 'user', content: 'late' }])],
        ['a fork', () => tb.threads.fork(scope, thread).catch(() => tb.threads.create(scope))],
        ['an artifact', () => tb.artifacts.create(scope, thread, 'late')],
        ['an upload', () => tb.artifacts.startUpload(scope, thread, announce('late'))],
        ['a file', () => tb.files.create(scope, 'late')],
        ['an upload of a file', () => tb.files.startUpload(scope, announce('late'))],
        ['a checkpoint', () => checkpointer.put(config, checkpointOf('b'), METADATA, { list: 1 })],
        ['writes', () => checkpointer.putWrites(put, [['list', 1]], 'task')],
        ['memory', () => store.put(['notes'], 'k', { a: 1 })],
        ['a key', () => tb.credentials.apiKeys.put(scope, ROOT, 'openai', { apiKey: 'sk' })],
        ['a variable', () => tb.variables.create(scope, ROOT, { name: 'n', value: 'v' })],
        ['a question', () => tb.usage.consume(scope, 1)],
        ['a conversation', () => tb.conversations.createConversation(scope)],
      ]
      for (const [what, act] of late) await expect(act(), what).rejects.toMatchObject(FORBIDDEN)
      // of somebody who was refused together with others, they hear nothing
      const other = newUser()
      const counted = await Promise.allSettled([
        tb.usage.consume(scope, 1),
        tb.usage.consume(other, 1),
        tb.usage.consume(other, 1),
      ])
      expect(counted.map(({ status }) => status)).toEqual(['rejected', 'fulfilled', 'fulfilled'])
      await tb.files.list(scope)
      expect(await rowsOf(opened, scope.userId)).toEqual({})
    })

    test('a user who was let in again stores as before', async () => {
      const scope = newUser()
      await expect(tb.gdpr.readmit(scope, ROOT)).rejects.toMatchObject({ code: 'not_found' })
      await newThread(scope)
      await erase(scope)
      await tb.gdpr.readmit(scope, ROOT)
      const thread = await newThread(scope)
      await tb.messages.append(scope, thread, [{ role: 'user', content: 'x' }])
      const { checkpointer } = tb.forUser(scope.userId)
      const config = { configurable: { thread_id: 'graph', checkpoint_ns: '' } }
      await checkpointer.put(config, checkpointOf('a'), METADATA, { list: 1 })
      expect((await checkpointer.getTuple(config))?.checkpoint.channel_values).toHaveProperty('list')
      expect(await tb.gdpr.findTombstone(scope)).toBeUndefined()
      const lines = (await tb.audit.list({ userId: scope.userId })).items.map(({ action }) => action)
      expect(lines).toEqual(['user_readmitted', 'data_erased'])
    })

    test('nobody is let in while their erasure is unfinished', async () => {
      const scope = newUser()
      await newThread(scope)
      const blobs: Blobs = {
        ...tb.blobs,
        find: () => Promise.reject(new Error('not now')),
        remove: () => Promise.reject(new Error('not now')),
      }
      await tb.files.create(scope, `bytes of ${scope.userId}`)
      const failing = await openServices(opened.database, { ports: { blobs } })
      await expect(failing.gdpr.erase(scope, ROOT)).rejects.toThrow('not now')
      await expect(tb.gdpr.readmit(scope, ROOT)).rejects.toMatchObject({ code: 'conflict' })
      await expect(newThread(scope)).rejects.toMatchObject(FORBIDDEN)
      // its row is gone, its bytes are not: what is left is found by the next one
      expect(await storedHashes(opened)).toContain(sha256Of(`bytes of ${scope.userId}`))
      expect(await erase(scope)).toMatchObject({ wasErased: false, blobs: 1 })
      expect(await storedHashes(opened)).not.toContain(sha256Of(`bytes of ${scope.userId}`))
      await tb.gdpr.readmit(scope, ROOT)
    })

    test('one that goes on when its user is let in again, since another has ended, takes nothing new', async () => {
      const scope = newUser()
      const thread = await newThread(scope)
      await tb.messages.append(scope, thread, [{ role: 'user', content: 'old' }])
      await tb.files.create(scope, `old bytes of ${scope.userId}`)
      const reached = gate()
      const go = gate()
      const blobs: Blobs = {
        ...tb.blobs,
        remove: async (...args) => {
          reached.open()
          await go.opened
          return tb.blobs.remove(...args)
        },
      }
      const slow = (await openServices(opened.database, { ports: { blobs } })).gdpr.erase(scope, ROOT)
      slow.catch(() => {})
      await reached.opened
      await erase(scope)
      await tb.gdpr.readmit(scope, ROOT)
      await newThread(scope)
      await tb.files.create(scope, `new bytes of ${scope.userId}`)
      go.open()
      await expect(slow).rejects.toMatchObject({
        code: 'conflict',
        message: expect.stringContaining('let in again'),
      })
      expect(await rowsOf(opened, scope.userId)).toEqual({ files: 1, threads: 1 })
      expect(await storedHashes(opened)).toContain(sha256Of(`new bytes of ${scope.userId}`))
    })

    test('writers that go on while it runs leave nothing behind', { timeout: 120_000 }, async () => {
      for (let round = 0; round < (engine.name === 'postgres' ? 5 : 2); round++) {
        const scope = newUser()
        const other = newUser()
        const thread = await newThread(scope)
        const theirs = await newThread(other)
        const messages = Array.from({ length: 500 }, () => ({ role: 'user' as const, content: 'x' }))
        for (let i = 0; i < 4; i++) await tb.messages.append(scope, thread, messages)
        const { checkpointer, store } = tb.forUser(scope.userId)
        let running = true
        let refused = 0
        let appended = 0
        const shared = `shared ${scope.userId}`
        const act = async (work: (n: number) => Promise<unknown>) => {
          for (let n = 0; running; n++)
            try {
              await work(n)
            } catch (error) {
              if (isThreadbaseError(error, 'forbidden')) refused++
              // a file whose bytes went between being put and being named is tried again by its client
              else if (
                !isThreadbaseError(error, 'unavailable') &&
                !isThreadbaseError(error, 'quota_exceeded')
              )
                throw error
              await delay(1)
            }
        }
        const writers = [
          act(() => tb.messages.append(scope, thread, [{ role: 'user', content: 'late' }])),
          act(async () => {
            const id = await newThread(scope)
            await tb.messages.append(scope, id, [{ role: 'user', content: 'late' }])
          }),
          act((n) => tb.artifacts.create(scope, thread, n % 2 === 0 ? shared : `${n} ${scope.userId}`)),
          act((n) => tb.files.create(scope, `f ${n} ${scope.userId}`)),
          act(() =>
            checkpointer.put(
              { configurable: { thread_id: 'graph', checkpoint_ns: '' } },
              checkpointOf('late'),
              METADATA,
              { list: 1 },
            ),
          ),
          act((n) => store.put(['notes'], `k${n % 5}`, { n })),
          act(() => tb.usage.consume(scope, 1)),
          act((n) => tb.credentials.apiKeys.put(scope, ROOT, `p${n % 5}`, { apiKey: 'sk' })),
          act(async (n) => {
            await tb.messages.append(other, theirs, [{ role: 'user', content: `${n}` }])
            appended++
          }),
          act((n) => (n < 5 ? tb.files.create(other, shared) : delay(5))),
        ]
        await delay(150)
        await erase(scope)
        await delay(100)
        running = false
        await Promise.all(writers)
        expect(await rowsOf(opened, scope.userId)).toEqual({})
        expect(refused).toBeGreaterThan(5)
        expect((await tb.threads.getThread(other, theirs)).lastSeq).toBe(appended)
        expect(await tb.upkeep.verify()).toMatchObject({ missing: 0, corrupt: 0 })
      }
    })

    describe('its bytes', () => {
      const storages: [
        name: string,
        available: boolean,
        open: () => Promise<{ blobs: Blobs; end(): Promise<void> }>,
      ][] = [
        ['in files', true, async () => ({ blobs: openTestFiles(), end: async () => {} })],
        [
          'in S3',
          s3Endpoint !== null,
          async () => {
            const bucket = await makeBucket()
            return { blobs: openS3(bucket.options), end: () => bucket.remove() }
          },
        ],
      ]
      for (const [name, available, open] of storages)
        describe.skipIf(!available)(name, () => {
          let storage: Awaited<ReturnType<typeof open>>
          let of: Threadbase
          beforeAll(async () => {
            storage = await open()
            of = await openServices(opened.database, { ports: { blobs: storage.blobs } })
          })
          afterAll(() => storage?.end())
          const hashes = async () => {
            const all: string[] = []
            for await (const { sha256 } of storage.blobs.list()) all.push(sha256)
            return all.sort()
          }

          test('go at once, those that another user names stay', async () => {
            const [scope, other] = [newUser(), newUser()]
            const [thread, theirs] = [
              (await of.threads.create(scope)).id,
              (await of.threads.create(other)).id,
            ]
            const [own, shared, theirOwn] = ['own', 'shared', 'theirs'].map(
              (what) => `${what} ${randomUUID()}`,
            ) as [string, string, string]
            await of.artifacts.create(scope, thread, own)
            await of.artifacts.create(scope, thread, own)
            await of.files.create(scope, own)
            await of.artifacts.create(scope, thread, shared)
            const artifact = await of.artifacts.create(other, theirs, shared)
            await of.files.create(other, theirOwn)
            const pending = await of.files.startUpload(scope, announce('pending'))
            await putUpload(storage.blobs, pending, 'pending')
            const announced = await of.artifacts.startUpload(scope, thread, announce('never put'))
            expect(announced.token).toBeTruthy()
            const before = await hashes()
            const report = await of.gdpr.erase(scope, ROOT)
            expect(report).toMatchObject({
              rows: { artifacts: 3, files: 1, uploads: 2, threads: 1 },
              ...{ blobs: 1, blobBytes: own.length, blobsLeft: 0 },
            })
            expect(await hashes()).toEqual(before.filter((sha256) => sha256 !== sha256Of(own)))
            expect(await storage.blobs.sweepStaged(-60_000)).toBe(0)
            expect(await of.artifacts.head(other, artifact.id)).toMatchObject({ exists: true })
            // the same again is a user's whose files they now are alone
            await of.gdpr.erase(other, ROOT)
            expect(await hashes()).not.toContain(sha256Of(shared))
            const { rows } = await sql`
              select from ${sql.table('blob_removals')} where sha256 in (${sha256Of(own)}, ${sha256Of(shared)})`.execute(
              opened.database.db,
            )
            expect(rows).toHaveLength(0)
          })

          test('go also when they were stored again in another place later', async () => {
            const scope = newUser()
            const thread = (await of.threads.create(scope)).id
            const bytes = `twice ${randomUUID()}`
            await of.files.create(scope, bytes)
            await delay(20)
            await of.artifacts.create(scope, thread, bytes)
            const report = await of.gdpr.erase(scope, ROOT)
            expect(report).toMatchObject({ blobs: 1, blobBytes: bytes.length, blobsLeft: 0 })
            expect(await hashes()).not.toContain(sha256Of(bytes))
          })

          test('stay while somebody else is about to name them', async () => {
            const [scope, other] = [newUser(), newUser()]
            const bytes = `both ${randomUUID()}`
            await of.files.create(scope, bytes)
            let erased: Promise<unknown> | undefined
            // between the bytes being put and the row that names them
            const slow = await openServices(opened.database, {
              ports: {
                blobs: {
                  ...storage.blobs,
                  stage: async (...args) => {
                    const staged = await storage.blobs.stage(...args)
                    return {
                      ...staged,
                      commit: async () => {
                        const done = await staged.commit()
                        await delay(5)
                        erased = of.gdpr.erase(scope, ROOT)
                        await erased
                        return done
                      },
                    }
                  },
                },
              },
            })
            await delay(5)
            const file = await slow.files.create(other, bytes)
            expect(await erased).toMatchObject({ blobs: 0, blobsLeft: 1 })
            expect(await of.files.head(other, file.id)).toMatchObject({ exists: true })
          })
        })
    })

    test('a storage that fails in the middle is gone on with', async () => {
      const scope = newUser()
      for (let i = 0; i < 10; i++) await tb.files.create(scope, `${i} of ${scope.userId}`)
      let calls = 0
      const blobs: Blobs = {
        ...tb.blobs,
        remove: async (sha256) => {
          if (calls++ % 3 === 2) throw new Error('away')
          await tb.blobs.remove(sha256)
        },
      }
      const failing = await openServices(opened.database, { ports: { blobs } })
      await expect(failing.gdpr.erase(scope, ROOT)).rejects.toThrow('away')
      await erase(scope)
      const left = await storedHashes(opened)
      for (let i = 0; i < 10; i++) expect(left).not.toContain(sha256Of(`${i} of ${scope.userId}`))
      expect(await sweepStaged(opened)).toBe(0)
    })

    test('the last superuser stays, two at once are not both erased', async () => {
      const make = async (username: string) =>
        (await tb.identity.users.create(ROOT, { username, password: 'long enough', isSuperuser: true })).id
      const [one, two] = [await make('chief-one'), await make('chief-two')]
      const keep = { keepLastSuperuser: true }
      const results = await Promise.allSettled(
        [one, two].map((userId) => tb.gdpr.erase({ userId }, ROOT, keep)),
      )
      expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
      const [last] = [one, two].filter((_, i) => results[i]?.status === 'rejected')
      await expect(tb.gdpr.erase({ userId: String(last) }, ROOT, keep)).rejects.toMatchObject({
        code: 'conflict',
      })
      expect((await tb.identity.users.getUser(String(last))).isSuperuser).toBe(true)
      await tb.gdpr.erase({ userId: String(last) }, ROOT)
    })

    test('the audit log is added to, and nothing else', async () => {
      await tb.audit.record(ROOT, 'data_read', 'somebody')
      const log = sql.table(`${opened.database.schema}.audit_log`)
      for (const change of [
        sql`update ${log} set actor_id = 'nobody'`,
        sql`delete from ${log}`,
        sql`delete from ${log} where user_id = 'somebody'`,
        sql`truncate ${log}`,
      ])
        await expect(change.execute(opened.database.db)).rejects.toMatchObject({
          cause: { code: '42501', message: 'the audit log is only ever added to' },
        })
    })

    test.skipIf(engine.name === 'pglite' || redisUrl === null)(
      'what other servers remember of the user counts no more, with Redis',
      async () => {
        const prefix = newRedisPrefix()
        const open = async () => {
          const options = { url: String(redisUrl), prefix, log: silentLog }
          const [cache, bus] = await Promise.all([openRedisCache(options), openRedisBus(options)])
          const services = await openServices(opened.database, {
            auth: { mode: 'accounts' },
            ports: { cache, bus, blobs: tb.blobs },
          })
          return { services, cache, bus }
        }
        const [first, second] = [await open(), await open()]
        try {
          const { identity } = first.services
          const username = `r-${randomUUID()}`
          const { id } = await identity.users.create(ROOT, { username, password: 'long enough' })
          const { key } = await identity.keys.create({ userId: id }, ROOT, { name: 'k' })
          const { tokens } = await identity.signIn.signIn({ login: username, password: 'long enough' }, {})
          for (const { services } of [first, second]) {
            await services.identity.ofKey(key)
            await services.identity.ofAccessToken(tokens.accessToken)
          }
          await first.services.gdpr.erase({ userId: id }, ROOT)
          await delay(50)
          for (const { services } of [first, second])
            for (const ask of [
              () => services.identity.ofKey(key),
              () => services.identity.ofAccessToken(tokens.accessToken),
              () => services.identity.sessions.refresh(tokens.refreshToken, {}),
              () => services.identity.signIn.signIn({ login: username, password: 'long enough' }, {}),
            ])
              await expect(ask()).rejects.toMatchObject({
                code: expect.stringMatching(/unauthorized|forbidden/),
              })
        } finally {
          for (const { cache, bus, services } of [first, second]) {
            await services.identity.close()
            await Promise.all([cache.close(), bus.close()])
          }
        }
      },
    )

    test('who is vouched for elsewhere is refused each time, and makes no row', async () => {
      const user = { id: `ext-${randomUUID()}`, provider: 'proxy' as const }
      await tb.identity.ofProxy(user.id)
      await tb.gdpr.erase({ userId: user.id }, ROOT)
      for (let i = 0; i < 3; i++) await expect(tb.identity.ofProxy(user.id)).rejects.toMatchObject(FORBIDDEN)
      expect(await rowsOf(opened, user.id)).toEqual({})
      await tb.gdpr.readmit({ userId: user.id }, ROOT)
      expect(await tb.identity.ofProxy(user.id)).toMatchObject({ userId: user.id })
      expect(await rowsOf(opened, user.id)).toEqual({ users: 1 })
    })
  })
}
