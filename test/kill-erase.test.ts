import { rm } from 'node:fs/promises'
import { sql } from 'kysely'
import { describe, expect, test } from 'vitest'
import { openThreadbase } from '../src/index.ts'
import { runChild } from './child.ts'
import { engines, makeTempDir, newSchemaName, postgresUrl, testRls } from './harness.ts'

type Line = { open?: true; rows?: number; table?: string; done?: object }

const ROOT = { userId: 'root', via: 'library' } as const
const scope = { userId: 'anna' }
const other = { userId: 'berta' }
const FILES = 450
const MESSAGES = 8_000
// within the files, between files and messages, within the messages
const KILL_AT = [1, 250, 500, 5_000]

for (const engine of engines) {
  describe.skipIf(!engine.available)(`an erasure that is killed, on ${engine.name}`, () => {
    test('is gone on with by the next one', { timeout: 180_000 }, async () => {
      const dir = await makeTempDir()
      const env = {
        DATA_DIR: dir,
        DATABASE_RLS: testRls,
        ...(engine.name === 'postgres' ? { DATABASE_URL: postgresUrl ?? '' } : {}),
        DATABASE_SCHEMA: newSchemaName(),
      }
      let kept: string
      {
        await using tb = await openThreadbase({ env })
        const [{ id }, theirs] = [await tb.threads.create(scope), await tb.threads.create(other)]
        const messages = Array.from({ length: 1_000 }, () => ({ role: 'user' as const, content: 'x' }))
        for (let n = 0; n < MESSAGES; n += 1_000) await tb.messages.append(scope, id, messages)
        await Promise.all(
          Array.from({ length: FILES }, (_, n) => tb.files.create(scope, `file ${n}`, { filename: `${n}` })),
        )
        kept = (await tb.artifacts.create(other, theirs.id, 'file 7')).id
      }
      let killed = 0
      for (const at of KILL_AT) {
        const child = runChild('erase-user.ts', { env, ...scope })
        for (let line = (await child.nextLine()) as Line | undefined; ; ) {
          if (line === undefined || line.done !== undefined) break
          if ((line.rows ?? 0) >= at) {
            await child.kill()
            killed++
            break
          }
          line = (await child.nextLine()) as Line | undefined
        }
        await child.exited
      }
      expect(killed).toBeGreaterThan(1)
      await using tb = await openThreadbase({ env })
      expect(await tb.gdpr.findTombstone(scope)).toBeDefined()
      await expect(tb.threads.create(scope)).rejects.toMatchObject({ code: 'forbidden' })
      await tb.gdpr.erase(scope, ROOT)
      expect(await tb.gdpr.count(scope)).toEqual({ rows: {}, blobs: 0, blobBytes: 0 })
      const left: string[] = []
      for await (const { sha256 } of tb.blobs.list()) left.push(sha256)
      expect(left).toEqual([(await tb.artifacts.getArtifact(other, kept)).sha256])
      expect(await tb.upkeep.verify()).toMatchObject({ missing: 0, corrupt: 0 })
      if (engine.name === 'postgres')
        await sql`drop schema ${sql.id(env.DATABASE_SCHEMA)} cascade`.execute(tb.database.db)
      await rm(dir, { recursive: true, force: true })
    })
  })
}
