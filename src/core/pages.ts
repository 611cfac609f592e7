import { ThreadbaseError } from './errors.ts'
import { isUuid } from './ids.ts'

/** One page of a list. `nextCursor` is absent on the last page. */
export type Page<T> = { items: T[]; nextCursor?: string }

/**
 * A keyset cursor: the sort key of the last row that was seen, and what it belongs to, so that a cursor of one
 * list is refused by another. Opaque to clients; not a secret.
 */
export function encodeCursor(kind: string, key: readonly (string | number)[]): string {
  return Buffer.from(JSON.stringify([kind, ...key])).toString('base64url')
}

/** @throws invalid_input when the text is not a cursor of this kind with keys of these types; numbers are integers. */
export function decodeCursor<const T extends readonly ('string' | 'number')[]>(
  kind: string,
  types: T,
  cursor: string,
): { [K in keyof T]: T[K] extends 'string' ? string : number } {
  const parts = readParts(cursor)
  const keys = parts?.slice(1) ?? []
  if (
    parts?.[0] !== kind ||
    keys.length !== types.length ||
    !keys.every((key, i) => typeof key === types[i] && (typeof key === 'string' || Number.isSafeInteger(key)))
  ) {
    throw badCursor()
  }
  return keys as { [K in keyof T]: T[K] extends 'string' ? string : number }
}

/** The key of a list in the order of its ids. @throws invalid_input as {@link decodeCursor} */
export function decodeIdCursor(kind: string, cursor: string): string {
  const [id] = decodeCursor(kind, ['string'], cursor)
  if (!isUuid(id)) throw badCursor()
  return id
}

/** For a cursor whose keys no row of the list can have. */
export function badCursor(): ThreadbaseError {
  return new ThreadbaseError('invalid_input', 'cursor is not one that this list gave out', {
    field: 'cursor',
  })
}

function readParts(cursor: string): unknown[] | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(cursor, 'base64url').toString('utf8'))
    return Array.isArray(value) ? value : undefined
  } catch {
    return undefined
  }
}

/**
 * Cuts `limit + 1` rows to a page of `limit`; the extra row is only the proof that there is more.
 * `cursorOf` makes the cursor of the last row kept.
 */
export function toPage<T>(rows: T[], limit: number, cursorOf: (last: T) => string): Page<T> {
  if (rows.length <= limit) return { items: rows }
  const items = rows.slice(0, limit)
  const last = items.at(-1)
  return last === undefined ? { items } : { items, nextCursor: cursorOf(last) }
}
