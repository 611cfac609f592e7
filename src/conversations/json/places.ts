import { lstat } from 'node:fs/promises'
import { join } from 'node:path'
import { ThreadbaseError } from '../../core/errors.ts'
import { type Scope, userOf } from '../../core/scope.ts'
import { isMissing } from '../../files/system.ts'
import { isPathSegment } from '../ids.ts'

/** `nested` is DIR/conversations/USER, `top` DIR/USER; `flat`, DIR/conversations itself, holds files of several users. */
export type PlaceKind = 'nested' | 'top' | 'flat'
/** A directory in which a user may have conversations. */
export type Place = { kind: PlaceKind; directory: string }
/** Where one conversation is, or would be. */
export type Spot = Place & { path: string; lock: string; turn: string }

const CONVERSATIONS = 'conversations'
const NO_USERS = [CONVERSATIONS, 'usage']

/** @throws invalid_input for one that cannot be the name of a directory here */
export function requireUserDirectory(scope: Scope): string {
  const userId = userOf(scope)
  if (isPathSegment(userId) && !NO_USERS.includes(userId) && !userId.endsWith('.json')) return userId
  throw new ThreadbaseError(
    'invalid_input',
    'the id of a user whose conversations are in files must be 1 to 200 bytes of text without slashes and control characters, with no dot in front, and neither conversations nor usage nor end in .json',
    { field: 'userId' },
  )
}

/** All directories that a user's conversations may be in: a conversation is read from the first that has it. */
export function placesOf(root: string, userId: string): Place[] {
  return [
    { kind: 'nested', directory: join(root, CONVERSATIONS, userId) },
    { kind: 'top', directory: join(root, userId) },
    { kind: 'flat', directory: join(root, CONVERSATIONS) },
  ]
}

export function spotIn(place: Place, id: string): Spot {
  const beside = (suffix: string) => join(place.directory, `.${id}.${suffix}`)
  return {
    ...place,
    path: join(place.directory, `${id}.json`),
    lock: beside('lock'),
    turn: beside('turn'),
  }
}

/** Whether all directories from the root down to this one are there, and none is a link, which may lead anywhere. */
export async function isOwnDirectory(root: string, { kind, directory }: Place): Promise<boolean> {
  if (kind === 'nested' && !(await isDirectory(join(root, CONVERSATIONS)))) return false
  return isDirectory(directory)
}

async function isDirectory(path: string): Promise<boolean> {
  return (await lstatOrNothing(path))?.isDirectory() === true
}

export async function lstatOrNothing(path: string) {
  try {
    return await lstat(path)
  } catch (error) {
    if (isMissing(error)) return undefined
    throw error
  }
}
