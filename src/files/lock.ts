import { randomUUID } from 'node:crypto'
import { link, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { ThreadbaseError } from '../core/errors.ts'
import { type Owner, ownerHere, SILENCE_MS, showsLife, whereIs } from './owner.ts'
import { answering, codeOf } from './system.ts'

export type FileLock = { release: () => Promise<void> }

const HEARTBEAT_MS = 5_000
const WAIT_MS = 20_000
const heldHere = new Set<string>()

/**
 * Takes a lock, which is a file that one process at a time can have, in a directory that is there. A lock whose owner died
 * is taken over; one whose owner cannot be asked, for it runs elsewhere, when it has been silent for half a minute.
 * @returns the lock; without it who has it, who may be another thread of this process
 */
export async function tryLock(path: string): Promise<{ lock?: FileLock; found?: Owner }> {
  const owner = ownerHere(randomUUID())
  heldHere.add(owner.token)
  try {
    const taken = await take(path, owner)
    if (taken !== true) {
      heldHere.delete(owner.token)
      return taken === undefined ? {} : { found: taken }
    }
  } catch (error) {
    heldHere.delete(owner.token)
    throw error
  }
  return { lock: { release: keepAlive(path, owner) } }
}

/** Shows signs of life until it is called. */
function keepAlive(path: string, owner: Owner): () => Promise<void> {
  const heartbeat = setInterval(() => {
    const now = new Date()
    utimes(path, now, now).catch(() => {})
  }, HEARTBEAT_MS)
  heartbeat.unref()
  return async () => {
    clearInterval(heartbeat)
    if (!heldHere.delete(owner.token)) return
    if ((await readOwner(path))?.token === owner.token) await rm(path, { force: true })
  }
}

/** True, or who has it; undefined where it went from hand to hand all the time. */
async function take(path: string, owner: Owner): Promise<true | Owner | undefined> {
  let tookOver = false
  for (let attempt = 0; attempt < 10; attempt++) {
    if (await linkNew(path, owner)) {
      // a directory may be large: it is read when there is reason to
      if (tookOver) await removeTakeovers(path)
      return true
    }
    const found = await readOwner(path)
    if (found === undefined) continue
    if (await isAlive(path, found)) return found
    tookOver = true
    await removeDead(path, found, owner)
  }
  return undefined
}

/** Whole or not at all: the file is written under a name of its own and then linked to its place. */
async function linkNew(path: string, owner: Owner): Promise<boolean> {
  // short, for the path may have a name that is as long as one can be
  const own = join(dirname(path), `.lock-of-${owner.token}`)
  try {
    await writeFile(own, JSON.stringify(owner), { mode: 0o600 })
    await link(own, path)
    return true
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false
    throw error
  } finally {
    await rm(own, { force: true })
  }
}

/**
 * Removes a dead owner's lock. The right to do so is a file named after the dead owner, and where the one who had that
 * right died, too, a file named after him: no such name is ever free again while the lock it is about is there, so of
 * all who found the owner dead one removes his lock, and never the next owner's.
 */
async function removeDead(path: string, dead: Owner, owner: Owner): Promise<void> {
  let right = takeoverOf(path, dead)
  while (!(await linkNew(right, owner))) {
    const other = await readOwner(right)
    if (other === undefined || (await isAlive(right, other))) return pause(20, 50)
    right = takeoverOf(path, other)
  }
  if ((await readOwner(path))?.token === dead.token) await rm(path, { force: true })
  await rm(right, { force: true })
}

const takeoverOf = (path: string, dead: Owner) => `${path}.takeover.${dead.token}`

/** Called by the new owner: whoever still has the right to remove a dead owner's lock finds that it is gone. */
export async function removeTakeovers(path: string): Promise<void> {
  const directory = dirname(path)
  for (const name of await readdir(directory))
    if (name.startsWith(`${basename(path)}.takeover`)) await rm(join(directory, name), { force: true })
}

async function readOwner(path: string): Promise<Owner | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Owner
  } catch (error) {
    // what a power cut left of a lock: judged by its silence
    return error instanceof SyntaxError ? unreadable(path) : undefined
  }
}

async function unreadable(path: string): Promise<Owner | undefined> {
  const file = await stat(path).catch(() => undefined)
  if (file === undefined) return undefined
  const token = `unread-${file.ino.toString(36)}-${Math.trunc(file.birthtimeMs)}`
  return { pid: 0, host: 'an unknown host', bornAt: '', token, since: 'an unknown time' }
}

async function isAlive(path: string, owner: Owner): Promise<boolean> {
  // what this very process wrote is held by one of its threads, or by another copy of this module
  return heldHere.has(owner.token) || showsLife(path, owner)
}

const pause = (fromMs: number, toMs: number) =>
  new Promise<void>((done) => setTimeout(done, fromMs + Math.random() * (toMs - fromMs)))

const queues = new Map<string, Promise<unknown>>()

/**
 * Works while nobody else does who asked for the same lock, in this process or another. Callers of one process come in the
 * order in which they asked.
 * @param path of the lock's file, in a directory that is there
 * @param waitMs how long to wait for others, in all
 * @throws unavailable that names the owner when the wait was in vain, or when the file system refuses
 */
export async function withFileLock<T>(
  path: string,
  work: () => Promise<T>,
  { waitMs = WAIT_MS }: { waitMs?: number } = {},
): Promise<T> {
  const key = resolve(path)
  const until = performance.now() + waitMs
  const turn = (queues.get(key) ?? Promise.resolve()).then(async () => {
    const lock = await answering(() => waitForLock(key, until, waitMs))
    try {
      return await work()
    } finally {
      // what was done is done; a lock that stays is taken over when this process has ended
      await lock.release().catch(() => {})
    }
  })
  const done = turn.catch(() => {})
  queues.set(key, done)
  try {
    return await turn
  } finally {
    if (queues.get(key) === done) queues.delete(key)
  }
}

async function waitForLock(path: string, until: number, waitMs: number): Promise<FileLock> {
  for (;;) {
    const { lock, found } = await tryLock(path)
    if (lock !== undefined) return lock
    if (performance.now() >= until) throw notFree(path, waitMs, found)
    await pause(2, 20)
  }
}

function notFree(path: string, waitMs: number, owner: Owner | undefined): ThreadbaseError {
  const who = owner === undefined ? 'others' : `process ${owner.pid}${whereIs(owner)} since ${owner.since}`
  const name = basename(path)
  return new ThreadbaseError(
    'unavailable',
    `${name} was not free within ${waitMs / 1_000} s: it is held by ${who}`,
    owner === undefined
      ? { lock: name }
      : { lock: name, pid: owner.pid, host: owner.host, since: owner.since },
  )
}

/** For people: when a lock is free whose owner was killed elsewhere. */
export const SILENCE_S = SILENCE_MS / 1_000
