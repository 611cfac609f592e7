import { rm } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { upgrade } from '../src/db/migrate.ts'
import { loadMigrations } from '../src/db/migrations.ts'
import { openPglite } from '../src/db/pglite.ts'
import { openPostgres } from '../src/db/postgres.ts'
import { prepareRls } from '../src/db/rls.ts'
import type { Threadbase } from '../src/threadbase.ts'
import { runChild } from './child.ts'
import { makeTempDir, openServices, recordingLog, templateFile, testRls } from './harness.ts'
import { type Cluster, clusterAvailable, makeCluster } from './postgres-cluster.ts'

type Stored = { seq: number; messageId: string | null; content: unknown }

async function readAll(tb: Threadbase, userId: string, thread: string): Promise<Stored[]> {
  const all: Stored[] = []
  let cursor: string | undefined
  do {
    const page: { items: Stored[]; nextCursor?: string } = await tb.messages.list({ userId }, thread, {
      limit: 200,
      cursor,
    })
    all.push(...page.items)
    cursor = page.nextCursor
  } while (cursor !== undefined)
  return all
}

describe.skipIf(!clusterAvailable('PostgreSQL restarted under load'))(
  'PostgreSQL restarted under load',
  () => {
    let cluster: Cluster
    beforeAll(async () => {
      cluster = await makeCluster()
    })
    afterAll(() => cluster?.remove())

    test.each(['immediate', 'fast'] as const)(
      '(%s) loses nothing that was acknowledged, and service resumes',
      async (mode) => {
        const scope = { userId: 'u' }
        const { log } = recordingLog()
        const database = await openPostgres({
          url: cluster.url,
          schema: `under_load_${mode}`,
          log,
          rls: testRls,
        })
        await upgrade(database, await loadMigrations())
        await prepareRls(database, { grant: true })
        const tb = await openServices(database)
        const { id: thread } = await tb.threads.create(scope)
        const acknowledged = new Map<string, number>()
        const failures: unknown[] = []
        let running = true
        let afterRestart = 0
        let restarted = false

        // each writer repeats a message until it is acknowledged, as a client with a message id does
        const write = async (writer: number) => {
          for (let n = 0; running; n++) {
            const messageId = `${writer}-${n}`
            while (!acknowledged.has(messageId)) {
              try {
                const [message] = await tb.messages.append(scope, thread, [
                  { messageId, role: 'user', content: messageId },
                ])
                acknowledged.set(messageId, message?.seq as number)
                if (restarted) afterRestart++
              } catch (error) {
                failures.push(error)
                await delay(20)
              }
            }
          }
        }
        const writers = Array.from({ length: 12 }, (_, n) => write(n))
        while (acknowledged.size < 50) await delay(10)
        for (let round = 0; round < 2; round++) {
          await cluster.stop(mode)
          await delay(200)
          await cluster.start()
          restarted = true
          const enough = afterRestart + 50
          while (afterRestart < enough) await delay(10)
        }
        running = false
        await Promise.all(writers)

        expect(failures.length).toBeGreaterThan(0)
        for (const failure of failures) expect(failure).toMatchObject({ code: 'unavailable' })
        const stored = await readAll(tb, scope.userId, thread)
        expect(new Map(stored.map(({ messageId, seq }) => [messageId, seq]))).toEqual(acknowledged)
        expect(stored.map(({ seq }) => seq)).toEqual(stored.map((_, n) => n + 1))
        await tb.close()
      },
    )
  },
)

describe('the embedded store', () => {
  test('killed again and again while it appends: every acknowledged message is there, once', async () => {
    const dataDir = await makeTempDir()
    const threadId = '0192f0c1-2f6b-7cc0-8d2e-5f0a6d2f4b11'
    const acknowledged = new Map<string, number>()
    for (let run = 0; run < 3; run++) {
      const child = runChild('append-embedded.ts', {
        dataDir,
        templateFile,
        threadId,
        run: `r${run}`,
        rls: testRls,
      })
      expect(await child.nextLine()).toBe('open')
      const lines: unknown[] = []
      for (let n = 0; n < 40; n++) lines.push(await child.nextLine())
      await delay(137 * run)
      await child.kill()
      lines.push(...(await child.rest()))
      for (const line of lines) {
        const { messageId, seq } = line as { messageId: string; seq: number }
        acknowledged.set(messageId, seq)
      }
    }
    expect(acknowledged.size).toBeGreaterThanOrEqual(120)
    const { log } = recordingLog()
    const database = await openPglite({ dataDir, templateFile, log, rls: testRls })
    const tb = await openServices(database)
    const stored = await readAll(tb, 'local', threadId)
    const found = new Map(stored.map(({ messageId, seq }) => [messageId, seq]))
    for (const [messageId, seq] of acknowledged) expect(found.get(messageId), messageId).toBe(seq)
    expect(found.size).toBe(stored.length)
    expect(stored.map(({ seq }) => seq)).toEqual(stored.map((_, n) => n + 1))
    for (const { content, messageId } of stored) expect(content).toBe(`text ${messageId}`)
    // and it goes on
    const [next] = await tb.messages.append({ userId: 'local' }, threadId, [{ role: 'user', content: 'on' }])
    expect(next?.seq).toBe(stored.length + 1)
    await tb.close()
    await rm(dataDir, { recursive: true, force: true })
  })
})
