import { spawnSync } from 'node:child_process'
import { mkdir, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { afterAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { runChild } from '../../test/child.ts'
import { makeTempDir } from '../../test/harness.ts'
import { lockDirectory } from './directory-lock.ts'

type Outcome = { won: boolean; pid?: number; code?: string; message?: string }

// what gives a process pids of its own while it keeps the host's name, as a container on the host's network does
const OTHER_PIDS = ['unshare', '--pid', '--fork', '--mount-proc', '--kill-child']
const canUnshare = spawnSync('unshare', [...OTHER_PIDS.slice(1), 'true']).status === 0

describe('the lock of a directory', () => {
  let directory: string
  const made: string[] = []
  beforeEach(async () => {
    directory = await makeTempDir()
    made.push(directory)
  })
  afterAll(() => Promise.all(made.map((path) => rm(path, { recursive: true, force: true }))))
  const holder = (startAt = 0) => runChild('take-lock.ts', { directory, startAt })
  /** What this process writes into a lock. */
  async function ownOwner(): Promise<object> {
    const lock = await lockDirectory(directory)
    const owner = JSON.parse(await readFile(join(directory, 'lock'), 'utf8'))
    await lock.release()
    return owner
  }
  /** A lock whose owner was killed. */
  async function leaveStale(): Promise<number> {
    const child = holder()
    const { pid } = (await child.nextLine()) as Outcome
    await child.kill()
    expect(await readdir(directory)).toEqual(['lock'])
    return pid as number
  }

  test('keeps a second process out and says who has it', async () => {
    const first = holder()
    const { pid } = (await first.nextLine()) as Outcome
    const [second] = (await holder().rest()) as Outcome[]
    expect(second).toMatchObject({ won: false, code: 'conflict', details: { pid } })
    expect(second?.message).toContain(`process ${pid}`)
    await expect(lockDirectory(directory)).rejects.toMatchObject({ code: 'conflict', details: { pid } })
    first.process.stdin?.end()
    await first.exited
    const lock = await lockDirectory(directory)
    await lock.release()
    expect(await readdir(directory)).toEqual([])
  })

  test('keeps the same process out, too', async () => {
    const lock = await lockDirectory(directory)
    await expect(lockDirectory(directory)).rejects.toMatchObject({
      code: 'conflict',
      details: { pid: process.pid },
    })
    await lock.release()
    await lock.release()
    await (await lockDirectory(directory)).release()
  })

  test('keeps another thread of the same process out', async () => {
    const lock = await lockDirectory(directory)
    const url = new URL('./directory-lock.ts', import.meta.url).href
    const code = `
      import { parentPort } from 'node:worker_threads'
      const { lockDirectory } = await import(${JSON.stringify(url)})
      parentPort.postMessage(await lockDirectory(${JSON.stringify(directory)}).then(() => 'won', (error) => error.code))`
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`))
    expect(await new Promise((resolve) => worker.once('message', resolve))).toBe('conflict')
    await worker.terminate()
    await lock.release()
  })

  test('is taken over when its owner died', async () => {
    await leaveStale()
    const lock = await lockDirectory(directory)
    expect(JSON.parse(await readFile(join(directory, 'lock'), 'utf8')).pid).toBe(process.pid)
    await lock.release()
  })

  test('is taken over when its owner is gone and another process has its pid', async () => {
    const owner = { ...(await ownOwner()), pid: 1, bornAt: '1', token: 't' }
    await writeFile(join(directory, 'lock'), JSON.stringify(owner))
    await (await lockDirectory(directory)).release()
  })

  test.skipIf(!canUnshare)('is not taken from a living process that has other pids', async () => {
    const inside = () => runChild('take-lock.ts', { directory, startAt: 0 }, OTHER_PIDS)
    const first = inside()
    expect(await first.nextLine()).toMatchObject({ won: true, pid: 1 })
    for (const second of [inside(), holder()]) {
      const [outcome] = (await second.rest()) as Outcome[]
      expect(outcome).toMatchObject({ won: false, code: 'conflict' })
      expect(outcome?.message).toContain('30 s')
    }
    await first.kill()
    // nobody can ask whether it lives; its silence must tell
    await expect(lockDirectory(directory)).rejects.toMatchObject({ code: 'conflict' })
    const longAgo = new Date(Date.now() - 31_000)
    await utimes(join(directory, 'lock'), longAgo, longAgo)
    await (await lockDirectory(directory)).release()
  })

  test('another boot is judged by its silence, and a lock of an older format, too', async () => {
    const path = join(directory, 'lock')
    const own = await ownOwner()
    for (const change of [{ bootId: 'another' }, { bootId: undefined, pidNamespace: undefined }]) {
      await writeFile(path, JSON.stringify({ ...own, ...change, token: 't' }))
      await expect(lockDirectory(directory)).rejects.toMatchObject({ code: 'conflict' })
      const longAgo = new Date(Date.now() - 31_000)
      await utimes(path, longAgo, longAgo)
      await (await lockDirectory(directory)).release()
    }
  })

  test('a lock that a power cut left empty is free when nobody touched it for a while', async () => {
    const path = join(directory, 'lock')
    await writeFile(path, '')
    await expect(lockDirectory(directory)).rejects.toMatchObject({ code: 'conflict' })
    const longAgo = new Date(Date.now() - 31_000)
    await utimes(path, longAgo, longAgo)
    await (await lockDirectory(directory)).release()
    expect(await readdir(directory)).toEqual([])
  })

  test('its owner shows signs of life', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    try {
      const lock = await lockDirectory(directory)
      const path = join(directory, 'lock')
      const longAgo = new Date(Date.now() - 29_000)
      await utimes(path, longAgo, longAgo)
      vi.advanceTimersByTime(10_000)
      while ((await stat(path)).mtimeMs < Date.now() - 5_000) await delay(10)
      await lock.release()
    } finally {
      vi.useRealTimers()
    }
  })

  test("another host's lock counts while it shows signs of life", async () => {
    const owner = { pid: 1, host: 'elsewhere', bornAt: '1', token: 't', since: '2026-01-01T00:00:00Z' }
    const path = join(directory, 'lock')
    await writeFile(path, JSON.stringify(owner))
    await expect(lockDirectory(directory)).rejects.toThrow(/process 1 on elsewhere/)
    const longAgo = new Date(Date.now() - 120_000)
    await utimes(path, longAgo, longAgo)
    await (await lockDirectory(directory)).release()
  })

  test('a directory that does not exist is made, for its owner only', async () => {
    const inner = join(directory, 'a', 'b')
    const lock = await lockDirectory(inner)
    expect(await readdir(inner)).toEqual(['lock'])
    await lock.release()
  })

  test('ten processes race for a lock whose owner died: one has it', async () => {
    // as if none, one, two had been killed in the middle of a takeover
    for (const killed of [0, 1, 2]) {
      await leaveStale()
      const path = join(directory, 'lock')
      const dead = JSON.parse(await readFile(path, 'utf8'))
      for (const token of [dead.token, 'killed 0'].slice(0, killed)) {
        const next = token === dead.token ? 'killed 0' : 'killed 1'
        await writeFile(`${path}.takeover.${token}`, JSON.stringify({ ...dead, token: next }))
      }
      const startAt = Date.now() + 2_500
      const racers = Array.from({ length: 10 }, () => holder(startAt))
      const outcomes = (await Promise.all(racers.map((racer) => racer.nextLine()))) as Outcome[]
      expect(outcomes.map(({ won }) => won).filter(Boolean)).toHaveLength(1)
      const winner = outcomes.find(({ won }) => won)
      expect(JSON.parse(await readFile(path, 'utf8')).pid).toBe(winner?.pid)
      for (const racer of racers) racer.process.stdin?.end()
      await Promise.all(racers.map(({ exited }) => exited))
      expect(await readdir(directory)).toEqual([])
      await mkdir(directory, { recursive: true })
    }
  })
})
