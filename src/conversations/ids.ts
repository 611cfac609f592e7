import { ThreadbaseError } from '../core/errors.ts'
import { idFromName, isUuid } from '../core/ids.ts'

// never changed: ids of stored conversations come from it
const NAMESPACE = '5b7c5a0e-6d0f-5c39-9d1b-0f6f6a1f3c52'
// one name of a file: no separators, no control characters, not hidden; with `.json` and more behind it still 255 bytes
const SEGMENT = /^(?!\.)[^/\\\p{Cc}\p{Cs}]+$/u
const MAX_SEGMENT_BYTES = 200

/** Whether a text can be the name of a file or directory as it is. */
export function isPathSegment(text: unknown): text is string {
  return typeof text === 'string' && SEGMENT.test(text) && Buffer.byteLength(text) <= MAX_SEGMENT_BYTES
}

/**
 * The id, which may become the name of a file.
 * @throws invalid_input for what is no such name: a path, a hidden file, an empty text
 */
export function requireConversationId(id: unknown): string {
  if (isPathSegment(id)) return id
  throw new ThreadbaseError(
    'invalid_input',
    'the id of a conversation must be 1 to 200 bytes of text without slashes and control characters, and no dot in front',
    { field: 'id' },
  )
}

/** The thread that a conversation is: its id if that is a UUID in lower case, else one that is made of it. */
export function threadIdOf(id: string): string {
  return isUuid(id) && id === id.toLowerCase() ? id : idFromName(NAMESPACE, id)
}
