import { readFileSync, readlinkSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { hostname, uptime } from 'node:os'

/** Where a pid means something: a kernel since its start, and a namespace of it. Undefined where there is no /proc. */
type Place = { host: string; bootId?: string; pidNamespace?: string }
/** A process that holds something, as its lock says. */
export type Owner = Place & { pid: number; bornAt: string; token: string; since: string }

// a process elsewhere (host, container) cannot be asked whether it lives: it is taken for dead after this much silence
export const SILENCE_MS = 30_000

/** This process. */
export function ownerHere(token: string): Owner {
  return {
    ...here(),
    pid: process.pid,
    bornAt: birthOf(process.pid) ?? '',
    token,
    since: new Date().toISOString(),
  }
}

/** Whether the owner lives: by its pid where that means something here, else by when it last touched the file. */
export async function showsLife(path: string, owner: Owner): Promise<boolean> {
  const place = here()
  if (!isSamePlace(owner, place)) return isTouched(path, owner, place)
  if (owner.pid === process.pid)
    return owner.bornAt === '' ? isTouched(path, owner, place) : owner.bornAt === birthOf(process.pid)
  const born = birthOf(owner.pid)
  if (born !== undefined && owner.bornAt !== '') return born === owner.bornAt
  try {
    process.kill(owner.pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

async function isTouched(path: string, owner: Owner, place: Place): Promise<boolean> {
  const seen = await stat(path).catch(() => undefined)
  if (seen === undefined) return false
  // after a restart of this machine nobody need wait; two machines may share a name, so the boot alone proves nothing
  const restarted = owner.host === place.host && owner.bootId !== place.bootId
  if (restarted && seen.mtimeMs < Date.now() - uptime() * 1_000) return false
  return Date.now() - seen.mtimeMs < SILENCE_MS
}

/** ` on HOST`, where it is another one. */
export const whereIs = (owner: Owner) => (owner.host === hostname() ? '' : ` on ${owner.host}`)

/** Whether the owner's pid means something here. */
export const isNear = (owner: Owner) => isSamePlace(owner, here())

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
