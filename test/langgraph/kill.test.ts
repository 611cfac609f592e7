import { rm } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { MemorySaver } from '@langchain/langgraph-checkpoint'
import { sql } from 'kysely'
import { describe, expect, test } from 'vitest'
import { ThreadbaseSaver } from '../../src/checkpoints/service.ts'
import { silentLog } from '../../src/core/log.ts'
import { openPglite } from '../../src/db/pglite.ts'
import { openPostgres } from '../../src/db/postgres.ts'
import { type Child, runChild } from '../child.ts'
import { engines, makeTempDir, newSchemaName, postgresUrl, templateFile, testRls } from '../harness.ts'
import { collect } from './compare.ts'
import { buildLongRun, WHOLE_LOG } from './long-run.ts'

type Line = {
  found?: string | null
  pending?: string[]
  put?: string
  writes?: string
  of?: string
  ns?: string
  done?: boolean
}

const KILLS = 3
const USER = 'runner'

async function placeOf(name: 'pglite' | 'postgres') {
  const common = { log: silentLog, rls: testRls }
  if (name === 'pglite') {
    const dataDir = await makeTempDir()
    return {
      place: { dataDir, templateFile, rls: testRls, userId: USER },
      open: () => openPglite({ ...common, dataDir, templateFile }),
      remove: () => rm(dataDir, { recursive: true, force: true }),
    }
  }
  const [url, schema] = [postgresUrl ?? '', newSchemaName()]
  const open = () => openPostgres({ ...common, url, schema })
  const remove = async () => {
    const database = await open()
    await sql`drop schema if exists ${sql.id(schema)} cascade`.execute(database.db)
    await database.close()
  }
  return { place: { url, schema, rls: testRls, userId: USER }, open, remove }
}

/** Lets it work until it has acknowledged so much, and some moment more, and kills it. All that it said. */
async function killAfter(child: Child, acknowledged: number, ms: number): Promise<Line[]> {
  const lines: Line[] = []
  while (lines.length <= acknowledged) {
    const line = (await child.nextLine()) as Line | undefined
    if (line === undefined) break
    lines.push(line)
  }
  await delay(ms)
  await child.kill()
  return [...lines, ...((await child.rest()) as Line[])]
}

for (const engine of engines) {
  describe.skipIf(!engine.available)(`a run that is killed on ${engine.name}`, () => {
    test('goes on from its newest acknowledged checkpoint, again and again, and ends as if nothing had been', {
      timeout: 300_000,
    }, async () => {
      const { place, open, remove } = await placeOf(engine.name)
      const acknowledged: Line[] = []
      const newestPut = () =>
        acknowledged
          .flatMap(({ put, ns }) => (put !== undefined && ns === '' ? [put] : []))
          .sort()
          .at(-1)
      const requireKept = ({ found, pending = [] }: Line) => {
        const newest = newestPut()
        if (newest === undefined) return
        expect(found).toBeTypeOf('string')
        expect(String(found) >= newest, `${found} is at least ${newest}`).toBe(true)
        const written = acknowledged.filter(
          ({ writes, of, ns }) => writes !== undefined && of === found && ns === '',
        )
        expect(pending).toEqual(expect.arrayContaining(written.map(({ writes }) => writes)))
      }
      for (let kill = 0; kill < KILLS; kill++) {
        const child = runChild('run-graph.ts', place)
        const lines = await killAfter(child, 2 + Math.floor(Math.random() * 18), Math.random() * 10)
        requireKept(lines[0] ?? {})
        expect(lines.at(-1)?.done).toBeUndefined()
        acknowledged.push(...lines)
      }
      expect(newestPut()).toBeDefined()

      const database = await open()
      const saver = new ThreadbaseSaver(database, { userId: USER })
      const config = { configurable: { thread_id: 'run' }, durability: 'sync', recursionLimit: 1_000 }
      const tuple = await saver.getTuple(config)
      requireKept({ found: tuple?.checkpoint.id, pending: tuple?.pendingWrites?.map(([taskId]) => taskId) })
      const graph = buildLongRun(saver)
      await graph.invoke(null, config)

      const undisturbed = buildLongRun(new MemorySaver())
      await undisturbed.invoke({ log: [] }, config)
      const [ours, theirs] = [await graph.getState(config), await undisturbed.getState(config)]
      expect(ours.values.log.map(({ did }: { did: string }) => did)).toEqual(WHOLE_LOG)
      expect(ours.values).toEqual(theirs.values)
      expect(ours.next).toEqual([])
      // every acknowledged one is still there, and the steps have no gap and no second
      const kept = await collect(saver.list({ configurable: { thread_id: 'run', checkpoint_ns: '' } }))
      const ids = kept.map(({ checkpoint }) => checkpoint.id)
      expect(ids).toEqual(
        expect.arrayContaining(
          acknowledged.flatMap(({ put, ns }) => (put !== undefined && ns === '' ? [put] : [])),
        ),
      )
      expect(kept.map(({ metadata }) => metadata?.step)).toEqual(kept.map((_, i) => kept.length - 2 - i))
      expect(kept).toHaveLength((await collect(undisturbed.getStateHistory(config))).length)
      await database.close()
      await remove()
    })
  })
}
