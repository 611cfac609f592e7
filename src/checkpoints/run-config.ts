import type { RunnableConfig } from '@langchain/core/runnables'
import { ThreadbaseError } from '../core/errors.ts'
import { userOf } from '../core/scope.ts'

/** What a config says of where it is. An empty checkpoint id is none. */
export type Place = {
  userId: string
  threadId: string | undefined
  ns: string | undefined
  id: string | undefined
}

/**
 * @param bound whose checkpointer it is, if it is somebody's: then the config has no say in that
 * @param fallback the user of a config that names none
 * @throws invalid_input that names the field
 */
export function readPlace(
  config: RunnableConfig,
  bound: string | undefined,
  fallback: string | undefined,
): Place {
  const given: Record<string, unknown> = config?.configurable ?? {}
  const id = given.checkpoint_id || given.thread_ts
  return {
    userId: readUser(bound ?? given.user_id ?? fallback),
    threadId: given.thread_id === undefined ? undefined : requireText(given.thread_id, 'thread_id'),
    ns:
      given.checkpoint_ns === undefined ? undefined : requireText(given.checkpoint_ns, 'checkpoint_ns', true),
    id: id === undefined || id === null || id === '' ? undefined : requireText(id, 'checkpoint_id'),
  }
}

/** @throws invalid_input */
export function readUser(userId: unknown): string {
  if (userId === undefined) {
    throw invalid(
      'configurable.user_id is missing: name the user there, or take the checkpointer of forUser(id)',
      'configurable.user_id',
    )
  }
  return userOf({ userId: userId as string })
}

export function requireThread({ threadId }: Place): string {
  if (threadId === undefined) throw invalid('configurable.thread_id is missing', 'configurable.thread_id')
  return threadId
}

// An entry of a btree index holds 2704 bytes at most.
const MAX_KEY_BYTES = 2_400

/** That a key of an index takes all of these together. @throws invalid_input that names the longest */
export function requireRoom(parts: Record<string, string>): void {
  const sizes = Object.entries(parts).map(([field, text]): [string, number] => [
    field,
    Buffer.byteLength(text),
  ])
  if (sizes.reduce((sum, [, bytes]) => sum + bytes, 0) <= MAX_KEY_BYTES) return
  const [field] = sizes.reduce((longest, one) => (one[1] > longest[1] ? one : longest))
  throw invalid(
    `${field} is too long: ${Object.keys(parts).join(', ')} together must not be longer than ${MAX_KEY_BYTES} bytes`,
    field,
  )
}

/** A text that a column can hold. @throws invalid_input */
export function requireText(value: unknown, field: string, allowEmpty = false): string {
  const name = field.includes('.') || field.includes(' ') ? field : `configurable.${field}`
  if (typeof value !== 'string' || (value === '' && !allowEmpty)) {
    throw invalid(`${name} must be a text${allowEmpty ? '' : ' that is not empty'}`, name)
  }
  if (!value.isWellFormed() || value.includes('\0')) {
    throw invalid(`${name} must not hold NUL or a lone surrogate`, name)
  }
  return value
}

export function invalid(message: string, field: string): ThreadbaseError {
  return new ThreadbaseError('invalid_input', message, { field })
}
