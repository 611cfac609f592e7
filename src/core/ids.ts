import { randomFillSync } from 'node:crypto'
import { v5, v7 } from 'uuid'
import { ThreadbaseError } from './errors.ts'

// random bytes are drawn for many ids at once: each draw is a system call
const POOL_BYTES = 4_096
const ID_BYTES = 16
const pool = Buffer.alloc(POOL_BYTES)
let used = POOL_BYTES
let msecs = 0
let seq = 0

/**
 * A new time-ordered id (UUID version 7, RFC 9562), so that index pages fill from the right; those of one process
 * grow, also within a millisecond.
 */
export function newId(): string {
  if (used === POOL_BYTES) {
    randomFillSync(pool)
    used = 0
  }
  const random = pool.subarray(used, used + ID_BYTES)
  used += ID_BYTES
  const now = Date.now()
  if (now > msecs) {
    msecs = now
    // half of its range, so that there is room to count in
    seq = random.readUInt32BE(0) >>> 1
  } else seq++
  return v7({ random, msecs, seq })
}

/** Above the ids that were made by then, all ids without a time: they begin with their time (RFC 9562, version 7). */
export function idAfter(time: Date | null): string {
  const next = time === null ? 2 ** 48 - 1 : time.getTime() + 1
  const digits = next.toString(16).padStart(12, '0')
  return `${digits.slice(0, 8)}-${digits.slice(8)}-0000-0000-000000000000`
}

/** The id that a name always gets: the same name in the same namespace, the same UUID (version 5). */
export function idFromName(namespace: string, name: string): string {
  return v5(name, namespace)
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

export function isUuid(value: unknown): value is string {
  return typeof value === 'string' && UUID.test(value)
}

/**
 * The id in lower case.
 * @throws invalid_input when it is not a UUID; `field` is named in the message.
 */
export function requireUuid(value: unknown, field: string): string {
  if (!isUuid(value)) {
    throw new ThreadbaseError('invalid_input', `${field} must be a UUID`, { field, value: preview(value) })
  }
  return value.toLowerCase()
}

function preview(value: unknown): string {
  const text = String(value)
  return text.length > 80 ? `${text.slice(0, 80)}…` : text
}
