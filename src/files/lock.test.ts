import { mkdir, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeEach, describe, expect, test } from 'vitest'
import { runChild } from '../../test/child.ts'
import { makeTempDir } from '../../test/harness.ts'
import { withFileLock } from './lock.ts'

describe('work under the lock of a file', () => {
  let directory: string
  let lock: string
  const made: string[] = []
  beforeEach(async () => {
    directory = await makeTempDir()
    lock = join(directory, '.a.lock')
    made.push(directory)
  })
  afterAll(() => Promise.all(made.map((path) => rm(path, { recursive: true, force: true }))))

  test('callers of one process come one at a time, in their order, also behind one that fails', async () => {
    const log: string[] = []
    const work = (i: number) =>
      withFileLock(lock, async () => {
        log.push(`begin ${i}`)
        await delay(1)
        log.push(`end ${i}`)
        if (i % 3 === 1) throw new Error(`no ${i}`)
        return i
      })
    const results = await Promise.allSettled(Array.from({ length: 7 }, (_, i) => work(i)))
    expect(log).toEqual(Array.from({ length: 7 }, (_, i) => [`begin ${i}`, `end ${i}`]).flat())
    expect(results.map((result) => (result.status === 'fulfilled' ? result.value : 'failed'))).toEqual([
      0,
      'failed',
      2,
      3,
      'failed',
      5,
      6,
    ])
    expect(await readdir(directory)).toEqual([])
  })

  test('other locks do not wait', async () => {
    await withFileLock(lock, () => withFileLock(join(directory, '.b.lock'), async () => {}))
  })

  test('three processes lose no addition', async () => {
    const file = join(directory, 'n')
    await writeFile(file, '0')
    const children = [1, 2, 3].map(() => runChild('hold-lock.ts', { lock, file, times: 100 }))
    for (const child of children)
      expect((await child.rest()).at(-1), 'a child failed').toEqual({ done: true })
    expect(await readFile(file, 'utf8')).toBe('300')
    expect(await readdir(directory)).toEqual(['n'])
  })

  test('names the owner when the wait was in vain, and takes the lock over when the owner is killed', async () => {
    const child = runChild('hold-lock.ts', { lock })
    const { held } = (await child.nextLine()) as { held: number }
    const work = () => withFileLock(lock, async () => 'done', { waitMs: 50 })
    const problem = { code: 'unavailable', details: { lock: '.a.lock', pid: held } }
    // the wait of those behind counts from when they asked
    const started = performance.now()
    const results = await Promise.allSettled(Array.from({ length: 10 }, work))
    for (const { status, reason } of results as PromiseRejectedResult[])
      expect({ status, reason }).toMatchObject({ status: 'rejected', reason: problem })
    expect(performance.now() - started).toBeLessThan(2_000)
    await expect(work()).rejects.toThrow(`process ${held}`)
    const patient = withFileLock(lock, async () => 'done')
    await child.kill()
    expect(await patient).toBe('done')
    expect(await readdir(directory)).toEqual([])
  })

  test('is taken over, too, when its name is nearly as long as one may be', async () => {
    const path = join(directory, `.${'x'.repeat(200)}.lock`)
    const child = runChild('hold-lock.ts', { lock: path })
    await child.nextLine()
    await child.kill()
    expect(await withFileLock(path, async () => 'done')).toBe('done')
    expect(await readdir(directory)).toEqual([])
  })

  test('a lock from elsewhere counts until it has been silent for a while', async () => {
    const elsewhere = { pid: 1, host: 'elsewhere', bornAt: '1', token: 't', since: '2026-01-01T00:00:00Z' }
    for (const content of [JSON.stringify(elsewhere), '']) {
      await writeFile(lock, content)
      await expect(withFileLock(lock, async () => {}, { waitMs: 30 })).rejects.toMatchObject({
        code: 'unavailable',
      })
      const longAgo = new Date(Date.now() - 31_000)
      await utimes(lock, longAgo, longAgo)
      expect(await withFileLock(lock, async () => 'done')).toBe('done')
    }
    expect(await readdir(directory)).toEqual([])
  })

  test('is unavailable where its directory is none', async () => {
    await writeFile(join(directory, 'file'), '')
    for (const path of [join(directory, 'absent', 'l'), join(directory, 'file', 'l')])
      await expect(withFileLock(path, async () => {})).rejects.toMatchObject({ code: 'unavailable' })
    await mkdir(join(directory, 'absent'))
    await withFileLock(join(directory, 'absent', 'l'), async () => {})
  })
})
