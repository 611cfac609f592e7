import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { existsSync } from 'node:fs'
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Worker } from 'node:worker_threads'
import { sql } from 'kysely'
import { afterAll, describe, expect, test } from 'vitest'
import { runChild } from '../../test/child.ts'
import { engines, makeTempDir, recordingLog, templateFile } from '../../test/harness.ts'
import { silentLog } from '../core/log.ts'
import { openPglite } from './pglite.ts'

const embedded = engines.find(({ name }) => name === 'pglite')
const made: string[] = []
afterAll(() => Promise.all(made.map((path) => rm(path, { recursive: true, force: true }))))
const newDirectory = async () => {
  const path = await makeTempDir()
  made.push(path)
  return path
}

/** The threads that are started while `act` runs. */
async function threadsOf<T>(
  act: () => Promise<T>,
): Promise<{ result: T; workers: Worker[]; stop: () => void }> {
  const workers: Worker[] = []
  const listen = (event: unknown) => void workers.push((event as { worker: Worker }).worker)
  subscribe('worker_threads', listen)
  return { result: await act(), workers, stop: () => unsubscribe('worker_threads', listen) }
}

describe('the embedded store', () => {
  test('a second process is refused by pid, and may come when the first has closed', async () => {
    const dataDir = await newDirectory()
    const database = await openPglite({ dataDir, templateFile, log: silentLog })
    await expect(openPglite({ dataDir, templateFile, log: silentLog })).rejects.toMatchObject({
      code: 'conflict',
      details: { pid: process.pid },
    })
    await sql`create table kept as select 7 as n`.execute(database.db)
    await database.close()
    const again = await openPglite({ dataDir, templateFile, log: silentLog })
    expect((await sql`select n from kept`.execute(again.db)).rows).toEqual([{ n: 7 }])
    await again.close()
    expect(await readdir(dataDir)).toEqual(['pg'])
  })

  test('opens without a prepared archive, and says that it takes a while', async () => {
    const dataDir = await newDirectory()
    const { log, logged } = recordingLog()
    const database = await openPglite({ dataDir, log })
    expect((await sql`select 1 as n`.execute(database.db)).rows).toEqual([{ n: 1 }])
    await database.close()
    const builtTemplate = existsSync(new URL('../embedded/template.tar.gz', import.meta.url))
    expect(logged.some(({ message }) => message.includes('preparing'))).toBe(!builtTemplate)
  })

  test('a prepared archive that is broken is an error that names it, and leaves nothing behind', async () => {
    const dataDir = await newDirectory()
    const broken = import.meta.filename
    await expect(openPglite({ dataDir, templateFile: broken, log: silentLog })).rejects.toMatchObject({
      code: 'unavailable',
    })
    const database = await openPglite({ dataDir, templateFile, log: silentLog })
    await database.ping()
    await database.close()
    expect(await readdir(dataDir)).toEqual(['pg'])
  })

  test('killed again and again while it makes its directory, it opens whole the next time', async () => {
    const dataDir = await newDirectory()
    const threadId = '0192f0c1-2f6b-7cc0-8d2e-5f0a6d2f4b11'
    for (const [i, lifeMs] of [250, 450, 700, 1_000, 1_400].entries()) {
      const child = runChild('append-embedded.ts', { dataDir, templateFile, threadId, run: `r${i}` })
      await delay(lifeMs)
      await child.kill()
    }
    const child = runChild('append-embedded.ts', { dataDir, templateFile, threadId, run: 'last' })
    expect(await child.nextLine()).toBe('open')
    expect(await child.nextLine()).toMatchObject({ seq: expect.any(Number) })
    await child.kill()
    expect((await readdir(dataDir)).filter((name) => name.startsWith('.new-'))).toEqual([])
    expect(existsSync(join(dataDir, 'pg', 'PG_VERSION'))).toBe(true)
  })

  test('when its thread dies, running calls are unavailable and the next one starts it again', async () => {
    const { result, workers, stop } = await threadsOf(async () => embedded?.open())
    const opened = result
    if (opened === undefined) throw new Error('no embedded engine')
    const scope = { userId: 'a' }
    const { id } = await opened.tb.threads.create(scope, { title: 'kept' })
    expect(workers).toHaveLength(1)
    const victim = expect(sql`select pg_sleep(30)`.execute(opened.database.db)).rejects.toMatchObject({
      code: 'unavailable',
    })
    const inTransaction = opened.database.db.transaction().execute(async (tx) => {
      await sql`select 1`.execute(tx)
    })
    const waiting = expect(inTransaction).rejects.toMatchObject({ code: 'unavailable' })
    await delay(100)
    await workers[0]?.terminate()
    await Promise.all([victim, waiting])
    expect(await opened.tb.threads.getThread(scope, id)).toMatchObject({ title: 'kept' })
    await opened.tb.messages.append(scope, id, [{ role: 'user', content: 'again' }])
    expect(workers).toHaveLength(2)
    stop()
    await opened.close()
  })

  test('closes although its thread is dead', async () => {
    const { result, workers, stop } = await threadsOf(async () => embedded?.open({ migrations: [] }))
    stop()
    await workers[0]?.terminate()
    await result?.close()
  })
})
