import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { ThreadbaseError } from '../core/errors.ts'
import { type FileLock, removeTakeovers, SILENCE_S, tryLock } from '../files/lock.ts'
import { isNear, type Owner, whereIs } from '../files/owner.ts'

/**
 * Takes `DIR/lock`, which one process at a time can have. A lock whose owner died is taken over.
 * @throws conflict that names the owner.
 */
export async function lockDirectory(directory: string): Promise<FileLock> {
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const path = join(directory, 'lock')
  const { lock, found } = await tryLock(path)
  if (lock === undefined) throw inUse(path, found)
  // nobody else looks after this directory
  await removeTakeovers(path)
  return lock
}

function inUse(path: string, owner: Owner | undefined): ThreadbaseError {
  if (owner === undefined)
    return new ThreadbaseError(
      'conflict',
      `cannot take ${path}: other processes are taking it at the same moment`,
    )
  const wait = isNear(owner)
    ? ''
    : `. It is on another machine or in another container: if it was killed, the store is free ${SILENCE_S} s later`
  return new ThreadbaseError(
    'conflict',
    `the embedded store is in use by process ${owner.pid}${whereIs(owner)} since ${owner.since} (${path}); stop it, or use its HTTP API${wait}`,
    { pid: owner.pid, host: owner.host, since: owner.since },
  )
}
