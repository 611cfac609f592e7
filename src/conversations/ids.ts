import { ThreadbaseError } from '../core/errors.ts'
import { idFromName, isUuid } from '../core/ids.ts'
import { isPathSegment } from '../core/path-segment.ts'

export { isPathSegment } from '../core/path-segment.ts'

// never changed: ids of stored conversations come from it
const NAMESPACE = '5b7c5a0e-6d0f-5c39-9d1b-0f6f6a1f3c52'

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
