import { stat } from 'node:fs/promises'
import { dirname, relative } from 'node:path'
import { isThreadbaseError, ThreadbaseError } from '../../core/errors.ts'
import { makeDirectory, removeDurably, writeAtomically } from '../../files/atomic.ts'
import { withFileLock } from '../../files/lock.ts'
import { conversationNotFound } from '../checks.ts'
import type { Conversation } from '../schema.ts'
import { isSame, type Read, readConversation, stampOf, writeDocument } from './document.ts'
import { isOwnDirectory, lstatOrNothing, type Place, placesOf, type Spot, spotIn } from './places.ts'

export type Found = { spot: Spot; read: Read<Conversation> }

const TRIES = 10
const FULL = ['ENOSPC', 'EDQUOT']

/** The files of one conversation: where it is, and how it changes. */
export type ConversationFiles = ReturnType<typeof createConversationFiles>

/** @param localUser whose the files are that name no user */
export function createConversationFiles(root: string, localUser: string) {
  const ownerOf = ({ user_id }: Conversation) =>
    typeof user_id === 'string' && user_id !== '' ? user_id : localUser

  /** @throws invalid_input for a broken file, unless it stands where it may be another user's */
  async function read(spot: Spot, userId: string, id: string): Promise<Read<Conversation> | undefined> {
    try {
      const found = await readConversation(spot.path, id, relative(root, spot.path))
      return found !== undefined && spot.kind === 'flat' && ownerOf(found.value) !== userId
        ? undefined
        : found
    } catch (error) {
      const isOthers = spot.kind === 'flat' && userId !== localUser
      if (isOthers && isThreadbaseError(error, 'invalid_input')) return undefined
      throw error
    }
  }

  /** Where the user may have this conversation and somebody has a file. */
  async function spotsOf(userId: string, id: string): Promise<Spot[]> {
    const spots: Spot[] = []
    for (const place of placesOf(root, userId)) {
      const spot = spotIn(place, id)
      if ((await isOwnDirectory(root, place)) && (await lstatOrNothing(spot.path))?.isFile() === true)
        spots.push(spot)
    }
    return spots
  }

  async function find(userId: string, id: string): Promise<Found | undefined> {
    for (const spot of await spotsOf(userId, id)) {
      const found = await read(spot, userId, id)
      if (found !== undefined) return { spot, read: found }
    }
    return undefined
  }

  /** Works with a conversation as it is, while nobody else changes it. @throws not_found */
  async function withConversation<T>(
    userId: string,
    id: string,
    work: (found: Found) => Promise<T>,
  ): Promise<T> {
    for (const spot of await spotsOf(userId, id)) {
      const outcome = await withFileLock(spot.lock, async () => {
        const found = await read(spot, userId, id)
        return found === undefined ? undefined : { result: await work({ spot, read: found }) }
      })
      if (outcome !== undefined) return outcome.result
    }
    throw conversationNotFound(id)
  }

  /**
   * Changes a conversation under its lock. Who knows no locks, an editor or another program, may change the file meanwhile:
   * then the change is made to what is there now.
   */
  async function change(
    { spot, read: first }: Found,
    userId: string,
    id: string,
    make: (conversation: Conversation) => Conversation,
  ): Promise<Read<Conversation>> {
    let now: Read<Conversation> | undefined = first
    for (let tries = 0; tries < TRIES && now !== undefined; tries++) {
      const value = make(now.value)
      const { stamp } = now
      const isUnchanged = async () => {
        const stats = await lstatOrNothing(spot.path)
        return stats !== undefined && isSame(stampOf(stats), stamp)
      }
      if (await writeAtomically(spot.path, writeDocument(value), { confirm: isUnchanged })) {
        const written = await lstatOrNothing(spot.path)
        return { value, stamp: written === undefined ? stamp : stampOf(written) }
      }
      now = await read(spot, userId, id)
    }
    if (now === undefined) throw conversationNotFound(id)
    throw new ThreadbaseError('unavailable', `conversation ${id} is changed by others all the time`)
  }

  /** Writes a file where none is. False when there is one by now. */
  async function add(place: Place, conversation: Conversation): Promise<boolean> {
    const spot = spotIn(place, conversation.id)
    const mode = await prepare(spot)
    return withFileLock(spot.lock, async () => {
      const isFree = async () => (await lstatOrNothing(spot.path)) === undefined
      if (!(await isFree())) return false
      // of one that was removed by hand
      await removeDurably(spot.turn)
      return writeAtomically(spot.path, writeDocument(conversation), { mode, confirm: isFree })
    })
  }

  /** Whether the user has it, be its file broken. */
  async function exists(userId: string, id: string): Promise<boolean> {
    for (const spot of await spotsOf(userId, id)) if (await isUsers(spot, userId, id)) return true
    return false
  }

  /** A broken file among those of several users is the local user's. */
  async function isUsers(spot: Spot, userId: string, id: string): Promise<boolean> {
    if (spot.kind !== 'flat') return true
    try {
      return (await read(spot, userId, id)) !== undefined
    } catch (error) {
      if (isThreadbaseError(error, 'invalid_input')) return true
      throw error
    }
  }

  /**
   * Puts a document in the place of the one with its id.
   * @returns false when there is none, or none any more: among the files of several users it would be another's
   * @throws invalid_input when that is broken, which may be more than what would replace it
   */
  async function replace(userId: string, document: Conversation): Promise<boolean> {
    for (const spot of await spotsOf(userId, document.id)) {
      const outcome = await withFileLock(spot.lock, async () => {
        const found = await read(spot, userId, document.id)
        if (found === undefined) return undefined
        if (spot.kind === 'flat' && ownerOf(document) !== userId) return 'elsewhere' as const
        await change({ spot, read: found }, userId, document.id, () => document)
        return 'here' as const
      })
      if (outcome === 'here') return true
      if (outcome === 'elsewhere') return move(spot, userId, document)
    }
    return false
  }

  /** Out of the directory of several users: first it is in the other one, too. */
  async function move(spot: Spot, userId: string, document: Conversation): Promise<boolean> {
    const place = placesOf(root, userId).find(({ kind }) => kind === 'nested') as Place
    if (!(await add(place, document))) return replace(userId, document)
    await remove(spot, userId, document.id)
    return true
  }

  /** All that the user has of this id, wherever it is. False when there was nothing. */
  async function removeAll(userId: string, id: string): Promise<boolean> {
    let removed = false
    for (const spot of await spotsOf(userId, id)) removed = (await remove(spot, userId, id)) || removed
    return removed
  }

  async function remove(spot: Spot, userId: string, id: string): Promise<boolean> {
    const work = async () => {
      if ((await lstatOrNothing(spot.path)) === undefined || !(await isUsers(spot, userId, id))) return false
      await removeDurably(spot.turn)
      return removeDurably(spot.path)
    }
    let begun = false
    try {
      return await withFileLock(spot.lock, () => {
        begun = true
        return work()
      })
    } catch (error) {
      // a full disk has no room for a lock: what makes room must work all the same, and who writes finds the file gone
      if (begun || !isThreadbaseError(error) || !FULL.includes(String(error.details?.code))) throw error
      return work()
    }
  }

  /** The directory, made where it is missing. @returns the mode of files: who may look into it may read them */
  async function prepare({ kind, directory }: Spot): Promise<number> {
    if (kind === 'nested') await ownDirectory({ kind: 'flat', directory: dirname(directory) })
    return (await ownDirectory({ kind, directory })) & 0o666
  }

  async function ownDirectory(place: Place): Promise<number> {
    // who may look into the one above it may look into this one
    await makeDirectory(place.directory, (await stat(dirname(place.directory))).mode & 0o777)
    if (!(await isOwnDirectory(root, place)))
      throw new ThreadbaseError(
        'unavailable',
        `${relative(root, place.directory)} is no directory of its own`,
      )
    return (await stat(place.directory)).mode
  }

  return { ownerOf, find, read, exists, withConversation, change, add, replace, removeAll }
}
