import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, openTestFiles, type TestDatabase } from '../../../test/harness.ts'
import type { Blobs, Staged } from '../../blobs/blobs.ts'
import { isThreadbaseError } from '../../core/errors.ts'

const A = { userId: 'alice' }
const RUNS = { pglite: 200, postgres: 1_000 }

/** Waits up to some milliseconds, often not at all: each run goes another way. */
const dither = () => (Math.random() < 0.5 ? undefined : delay(Math.random() * 4))

/** The storage, with pauses before and after each change. */
function dithering(blobs: Blobs): Blobs {
  const around = async <T>(work: () => Promise<T>): Promise<T> => {
    await dither()
    const result = await work()
    await dither()
    return result
  }
  return {
    ...blobs,
    stage: async (source, options) => {
      const staged: Staged = await blobs.stage(source, options)
      return { ...staged, commit: () => around(staged.commit) }
    },
    remove: (sha256) => around(() => blobs.remove(sha256)),
  }
}

for (const engine of engines) {
  describe.skipIf(!engine.available)(`the collector and those who store, on ${engine.name}`, () => {
    let opened: TestDatabase
    let blobs: Blobs
    beforeAll(async () => {
      blobs = openTestFiles()
      opened = await engine.open({ ports: { blobs: dithering(blobs) } })
    })
    afterAll(() => opened?.close())

    test('no interleaving loses bytes that a row names', { timeout: 300_000 }, async () => {
      const { artifacts, threads, upkeep } = opened.tb
      const thread = await threads.create(A)
      // few contents, so that what one deletes another stores again
      const contents = Array.from({ length: 4 }, () => randomBytes(50))
      const collected: number[] = []
      const upload = async () => {
        await dither()
        const bytes = contents[Math.floor(Math.random() * contents.length)] as Buffer
        try {
          await artifacts.create(A, thread.id, bytes)
        } catch (error) {
          // with no grace at all, what was touched a moment ago may be collected before it has its name
          if (!isThreadbaseError(error, 'unavailable')) throw error
        }
      }
      const remove = async (id: string) => {
        await dither()
        await artifacts.delete(A, id)
      }
      const collect = async () => {
        await dither()
        collected.push((await upkeep.collect({ graceS: 0 })).removed)
      }
      for (let run = 0; run < RUNS[engine.name]; run++) {
        const { items } = await artifacts.list(A, thread.id)
        const doomed = items.filter(() => Math.random() < 0.6)
        const uploads = Array.from({ length: 1 + Math.floor(Math.random() * 3) }, upload)
        await Promise.all([...uploads, ...doomed.map(({ id }) => remove(id)), collect(), collect()])
        for (const artifact of (await artifacts.list(A, thread.id)).items) {
          const stored = await blobs.find(artifact.sha256)
          expect(stored, `run ${run}: ${JSON.stringify(artifact)}`).toMatchObject({ size: 50 })
        }
      }
      // it did remove, and it did meet uploads
      expect(collected.reduce((sum, one) => sum + one)).toBeGreaterThan(RUNS[engine.name] / 10)
      expect(await upkeep.verify()).toMatchObject({ missing: 0, corrupt: 0 })
      // an upload that came too late in the last run leaves bytes without a row: one of four is a large share of strays
      await upkeep.collect({ graceS: 0, strays: true })
      const named = new Set((await artifacts.list(A, thread.id)).items.map(({ sha256 }) => sha256))
      const kept = new Set<string>()
      for await (const { sha256 } of blobs.list()) kept.add(sha256)
      expect(kept).toEqual(named)
    })

    test('a grace period longer than an upload takes lets no upload fail', async () => {
      const { artifacts, threads, upkeep } = opened.tb
      const thread = await threads.create(A)
      let done = false
      const collecting = (async () => {
        while (!done) await upkeep.collect({ graceS: 5 })
      })()
      try {
        await Promise.all(
          Array.from({ length: 50 }, () => artifacts.create(A, thread.id, Buffer.from('the same'))),
        )
      } finally {
        done = true
        await collecting
      }
      expect((await artifacts.list(A, thread.id, { limit: 100 })).items).toHaveLength(50)
    })

    test('those who collect at the same time remove everything together', async () => {
      const { artifacts, threads, upkeep } = opened.tb
      const thread = await threads.create(A)
      for (let i = 0; i < 30; i++) await artifacts.create(A, thread.id, randomBytes(10))
      await threads.delete(A, thread.id)
      await upkeep.collect({ graceS: 3_600 }).then(({ removed, young }) => {
        expect([removed, young]).toEqual([0, 30])
      })
      const reports = await Promise.all(Array.from({ length: 4 }, () => upkeep.collect({ graceS: 0 })))
      expect(reports.reduce((sum, { removed }) => sum + removed, 0)).toBeGreaterThanOrEqual(30)
      expect((await upkeep.collect({ graceS: 0 })).removed).toBe(0)
      expect(await upkeep.verify()).toMatchObject({ missing: 0, corrupt: 0 })
    })
  })
}
