import { randomUUID } from 'node:crypto'
import { readFileSync, readlinkSync } from 'node:fs'
import { link, mkdir, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { hostname, uptime } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { ThreadbaseError } from '../core/errors.ts'

/** Where a pid means something: a kernel since its start, and a namespace of it. Undefined where there is no /proc. */
type Place = { host: string; bootId?: string; pidNamespace?: string }
type Owner = Place & { pid: number; bornAt: string; token: string; since: string }

export type DirectoryLock = { release: () => Promise<void> }

const HEARTBEAT_MS = 5_000
// a process elsewhere (host, container) cannot be asked whether it lives: it is taken for dead after this much silence
const SILENCE_MS = 30_000
const heldHere = new Set<string>()

/**
 * Takes `DIR/lock`, which one process at a time can have. A lock whose owner died is taken over.
 * @throws conflict that names the owner.
 */
export async function lockDirectory(directory: string): Promise<DirectoryLock> {
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const path = join(directory, 'lock')
  const owner: Owner = {
    ...here(),
    pid: process.pid,
    bornAt: birthOf(process.pid) ?? '',
    token: randomUUID(),
    since: new Date().toISOString(),
  }
  heldHere.add(owner.token)
  try {
    await take(path, owner)
  } catch (error) {
    heldHere.delete(owner.token)
    throw error
  }
  const heartbeat = setInterval(() => {
    const now = new Date()
    utimes(path, now, now).catch(() => {})
  }, HEARTBEAT_MS)
  heartbeat.unref()
  return {
    release: async () => {
      clearInterval(heartbeat)
      if (!heldHere.delete(owner.token)) return
      if ((await readOwner(path))?.token === owner.token) await rm(path, { force: true })
    },
  }
}

async function take(path: string, owner: Owner): Promise<void> {
  for (let attempt = 0; attempt < 10; attempt++) {
    if (await linkNew(path, owner)) return removeTakeovers(path)
    const found = await readOwner(path)
    if (found === undefined) continue
    if (await isAlive(path, found)) throw inUse(path, found)
    await removeDead(path, found, owner)
  }
  throw new ThreadbaseError(
    'conflict',
    `cannot take ${path}: other processes are taking it at the same moment`,
  )
}

/** Whole or not at all: the file is written under a name of its own and then linked to its place. */
async function linkNew(path: string, owner: Owner): Promise<boolean> {
  const own = join(dirname(path), `lock-of-${owner.token}`)
  await writeFile(own, JSON.stringify(owner), { mode: 0o600 })
  try {
    await link(own, path)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
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
    if (other === undefined || (await isAlive(right, other))) {
      await new Promise((resolve) => setTimeout(resolve, 20 + Math.random() * 30))
      return
    }
    right = takeoverOf(path, other)
  }
  if ((await readOwner(path))?.token === dead.token) await rm(path, { force: true })
  await rm(right, { force: true })
}

function takeoverOf(path: string, dead: Owner): string {
  return `${path}.takeover.${dead.token}`
}

/** Called by the new owner: whoever still has the right to remove a dead owner's lock finds that it is gone. */
async function removeTakeovers(path: string): Promise<void> {
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
  const token = `unreadable-${file.ino}-${file.birthtimeMs}`
  return { pid: 0, host: 'an unknown host', bornAt: '', token, since: 'an unknown time' }
}

async function isAlive(path: string, owner: Owner): Promise<boolean> {
  // what this very process wrote is held by one of its threads, or by another copy of this module
  if (heldHere.has(owner.token)) return true
  const place = here()
  if (!isSamePlace(owner, place)) return showsLife(path, owner, place)
  if (owner.pid === process.pid)
    return owner.bornAt === '' ? showsLife(path, owner, place) : isOurBirth(owner.bornAt)
  const born = birthOf(owner.pid)
  if (born !== undefined && owner.bornAt !== '') return born === owner.bornAt
  try {
    process.kill(owner.pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

async function showsLife(path: string, owner: Owner, place: Place): Promise<boolean> {
  const seen = await stat(path).catch(() => undefined)
  if (seen === undefined) return false
  // after a restart of this machine nobody need wait; two machines may share a name, so the boot alone proves nothing
  const restarted = owner.host === place.host && owner.bootId !== place.bootId
  if (restarted && seen.mtimeMs < Date.now() - uptime() * 1_000) return false
  return Date.now() - seen.mtimeMs < SILENCE_MS
}

function isSamePlace(a: Place, b: Place): boolean {
  return a.host === b.host && a.bootId === b.bootId && a.pidNamespace === b.pidNamespace
}

function here(): Place {
  const bootId = tryTo(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim())
  const pidNamespace = tryTo(() => readlinkSync('/proc/self/ns/pid'))
  return { host: hostname(), bootId, pidNamespace }
}

/** The start time of a process in clock ticks (Linux, proc(5) field 22), which tells a reused pid from the first. */
function birthOf(pid: number): string | undefined {
  return tryTo(() => {
    // a /proc that was mounted for another namespace numbers processes otherwise
    if (readlinkSync('/proc/self') !== String(process.pid)) return undefined
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
  })
}

function tryTo<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}

function isOurBirth(bornAt: string): boolean {
  return bornAt === birthOf(process.pid)
}

function inUse(path: string, owner: Owner): ThreadbaseError {
  const place = here()
  const where = owner.host === place.host ? '' : ` on ${owner.host}`
  const wait = isSamePlace(owner, place)
    ? ''
    : `. It is on another machine or in another container: if it was killed, the store is free ${SILENCE_MS / 1_000} s later`
  return new ThreadbaseError(
    'conflict',
    `the embedded store is in use by process ${owner.pid}${where} since ${owner.since} (${path}); stop it, or use its HTTP API${wait}`,
    { pid: owner.pid, host: owner.host, since: owner.since },
  )
}
