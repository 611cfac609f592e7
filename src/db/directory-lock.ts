import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { link, mkdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { ThreadbaseError } from '../core/errors.ts'

type Owner = { pid: number; host: string; bornAt: string; token: string; since: string }

export type DirectoryLock = { release: () => Promise<void> }

const HEARTBEAT_MS = 5_000
// another host's process cannot be asked whether it lives; it is taken for dead after this much silence
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
    pid: process.pid,
    host: hostname(),
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
    if (await linkNew(path, owner)) return
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
  const own = `${path}.${owner.token}`
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

/** Removes a dead owner's lock under a second lock, so that of two who found it dead only one removes it. */
async function removeDead(path: string, dead: Owner, owner: Owner): Promise<void> {
  const takeover = `${path}.takeover`
  if (!(await linkNew(takeover, owner))) {
    const other = await readOwner(takeover)
    if (other !== undefined && !(await isAlive(takeover, other))) await rm(takeover, { force: true })
    await new Promise((resolve) => setTimeout(resolve, 20 + Math.random() * 30))
    return
  }
  try {
    if ((await readOwner(path))?.token === dead.token) await rm(path, { force: true })
  } finally {
    await rm(takeover, { force: true })
  }
}

async function readOwner(path: string): Promise<Owner | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Owner
  } catch {
    return undefined
  }
}

async function isAlive(path: string, owner: Owner): Promise<boolean> {
  if (owner.host !== hostname()) {
    const seen = await stat(path).catch(() => undefined)
    return seen !== undefined && Date.now() - seen.mtimeMs < SILENCE_MS
  }
  // what this very process wrote is held by one of its threads, or by another copy of this module
  if (owner.pid === process.pid) return heldHere.has(owner.token) || isOurBirth(owner.bornAt)
  const born = birthOf(owner.pid)
  if (born !== undefined && owner.bornAt !== '') return born === owner.bornAt
  try {
    process.kill(owner.pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** The start time of a process in clock ticks (Linux, proc(5) field 22), which tells a reused pid from the first. */
function birthOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
  } catch {
    return undefined
  }
}

function isOurBirth(bornAt: string): boolean {
  return bornAt !== '' && bornAt === birthOf(process.pid)
}

function inUse(path: string, owner: Owner): ThreadbaseError {
  const where = owner.host === hostname() ? '' : ` on ${owner.host}`
  return new ThreadbaseError(
    'conflict',
    `the embedded store is in use by process ${owner.pid}${where} since ${owner.since} (${path}); stop it, or use its HTTP API`,
    { pid: owner.pid, host: owner.host, since: owner.since },
  )
}
