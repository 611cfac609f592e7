import { randomUUID } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { sql } from 'kysely'
import pg from 'pg'
import { describe, expect, test } from 'vitest'
import { openThreadbase } from '../src/index.ts'
import { runChild } from './child.ts'
import { engines, makeTempDir, newSchemaName, postgresUrl, testRls } from './harness.ts'

type Line = { stored?: string; deleted?: string; collected?: number }

const KILLS = 3
const scope = { userId: 'local' }

/** What a process had asked PostgreSQL for goes on after its death, and may still be committed. */
async function statementsEnd(schema: string): Promise<void> {
  const client = new pg.Client({ connectionString: postgresUrl ?? '' })
  await client.connect()
  try {
    for (;;) {
      const { rows } = await client.query(
        'select 1 from pg_stat_activity where pid <> pg_backend_pid() and strpos(query, $1) > 0',
        [schema],
      )
      if (rows.length === 0) return
      await delay(20)
    }
  } finally {
    await client.end()
  }
}

for (const engine of engines) {
  describe.skipIf(!engine.available)(`a process that is killed while it stores, on ${engine.name}`, () => {
    test('leaves no row without bytes, and no bytes that the collector does not find', {
      timeout: 180_000,
    }, async () => {
      const dir = await makeTempDir()
      const env = {
        DATA_DIR: dir,
        DATABASE_RLS: testRls,
        ...(engine.name === 'postgres' ? { DATABASE_URL: postgresUrl ?? '' } : {}),
        DATABASE_SCHEMA: newSchemaName(),
      }
      const threadId = randomUUID()
      const stored = new Set<string>()
      const deleted = new Set<string>()
      for (let kill = 0; kill < KILLS; kill++) {
        const child = runChild('store-artifacts.ts', { env, threadId })
        await child.nextLine()
        await delay(1_500 + 1_000 * Math.random())
        await child.kill()
        for (const line of (await child.rest()) as Line[]) {
          if (line.stored !== undefined) stored.add(line.stored)
          if (line.deleted !== undefined) deleted.add(line.deleted)
        }
        if (engine.name === 'postgres') await statementsEnd(env.DATABASE_SCHEMA)
        const tb = await openThreadbase({ env })
        try {
          const found = new Set<string>()
          const named = new Set<string>()
          for (let cursor: string | undefined; ; ) {
            const page = await tb.artifacts.list(scope, threadId, { limit: 200, cursor })
            for (const { id, sha256 } of page.items) {
              found.add(id)
              named.add(sha256)
            }
            if (page.nextCursor === undefined) break
            cursor = page.nextCursor
          }
          const lost = [...stored].filter((id) => !deleted.has(id) && !found.has(id))
          // a deletion whose acknowledgement did not come out any more is none that is lost
          expect(lost.length, `${lost.length} of ${stored.size} are lost`).toBeLessThanOrEqual(3)
          expect(await tb.upkeep.verify()).toMatchObject({ missing: 0, corrupt: 0 })
          await tb.upkeep.collect({ graceS: 0, uploadGraceS: 0 })
          const kept = new Set<string>()
          for await (const { sha256 } of tb.blobs.list()) kept.add(sha256)
          expect(kept).toEqual(named)
          expect(await tb.blobs.sweepStaged(-1_000)).toBe(0)
          for (const id of lost) stored.delete(id)
          if (kill === KILLS - 1) {
            expect(found.size).toBeGreaterThan(20)
            if (engine.name === 'postgres')
              await sql`drop schema ${sql.id(env.DATABASE_SCHEMA)} cascade`.execute(tb.database.db)
          }
        } finally {
          await tb.close()
        }
      }
      await rm(dir, { recursive: true, force: true })
    })
  })
}
