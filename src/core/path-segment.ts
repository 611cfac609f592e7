// one name of a file: no separators, no control characters, not hidden; with `.json` and more behind it still 255 bytes
const SEGMENT = /^(?!\.)[^/\\\p{Cc}\p{Cs}]+$/u
const MAX_BYTES = 200

/** Whether a text can be the name of a file or directory as it is. */
export function isPathSegment(text: unknown): text is string {
  return typeof text === 'string' && SEGMENT.test(text) && Buffer.byteLength(text) <= MAX_BYTES
}
