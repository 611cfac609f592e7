import { isUtf8 } from 'node:buffer'
import { ThreadbaseError } from '../core/errors.ts'

/** One line or array element, `n` from 1: its text, or why that cannot be had. */
export type Piece = { n: number; text: string } | { n: number; problem: string }

/** A longer line or element is refused: as text and as values it would need a multiple of this in memory. */
export const MAX_PIECE_BYTES = 256 * 2 ** 20

const LINE_FEED = 0x0a
const QUOTE = 0x22
const COMMA = 0x2c
const BACKSLASH = 0x5c
const [OPEN_ARRAY, CLOSE_ARRAY, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d]

/** The lines of a text, one at a time; blank ones are counted and left out. */
export async function* splitLines(
  chunks: AsyncIterable<Buffer>,
  maxBytes = MAX_PIECE_BYTES,
): AsyncGenerator<Piece> {
  const line = createCollector(maxBytes)
  let n = 1
  for await (const chunk of chunks) {
    let from = 0
    for (let to = chunk.indexOf(LINE_FEED); to >= 0; to = chunk.indexOf(LINE_FEED, from)) {
      line.add(chunk.subarray(from, to))
      const piece = line.take(n++)
      if (piece !== undefined) yield piece
      from = to + 1
    }
    line.add(chunk.subarray(from))
  }
  const last = line.take(n)
  if (last !== undefined) yield last
}

/**
 * The elements of a JSON array, one at a time, found by brackets and quotes alone: an element that is no JSON is
 * handed out like the others, and those behind it are found as long as its brackets are in balance.
 * @throws invalid_input when the text does not begin with an array
 */
export async function* splitArray(
  chunks: AsyncIterable<Buffer>,
  maxBytes = MAX_PIECE_BYTES,
): AsyncGenerator<Piece> {
  const element = createCollector(maxBytes)
  const findEnd = createEndFinder()
  let state: 'before' | 'inside' | 'after' = 'before'
  let n = 1
  for await (const chunk of chunks) {
    let from = 0
    if (state === 'before') {
      from = skipBlank(chunk)
      if (from === chunk.length) continue
      if (chunk[from++] !== OPEN_ARRAY) throw notAnArray()
      state = 'inside'
    }
    while (from <= chunk.length) {
      const to: number = state === 'inside' ? findEnd(chunk, from) : chunk.length
      element.add(chunk.subarray(from, to))
      from = to + 1
      if (to === chunk.length) break
      const piece = element.take(n)
      if (piece !== undefined) yield piece
      // a comma before the closing bracket is common and harmless
      else if (chunk[to] === COMMA) yield { n, problem: 'there is nothing before the comma' }
      if (chunk[to] === CLOSE_ARRAY) state = 'after'
      n++
    }
  }
  if (state === 'before') throw notAnArray()
  if (state === 'inside') yield { n, problem: 'the file ends before the array does' }
  else if (element.take(n) !== undefined) yield { n, problem: 'there is text after the end of the array' }
}

function notAnArray(): ThreadbaseError {
  return new ThreadbaseError('invalid_input', 'the file is not a JSON array of conversations')
}

const isBlank = (byte: number | undefined) =>
  byte === 0x20 || byte === LINE_FEED || byte === 0x0d || byte === 0x09

/** Index of the first byte that is no white space; the length when there is none. */
export function skipBlank(bytes: Buffer): number {
  let i = 0
  while (i < bytes.length && isBlank(bytes[i])) i++
  return i
}

/**
 * Makes a function that gives the place of the next comma or closing bracket of the outermost array, or the chunk's
 * length. It remembers between chunks whether it is inside a string or a nested value.
 */
function createEndFinder(): (chunk: Buffer, from: number) => number {
  let depth = 0
  let inString = false
  let escaped = false
  return (chunk, from) => {
    for (let i = from; i < chunk.length; i++) {
      const byte = chunk[i]
      if (inString) {
        if (escaped) escaped = false
        else if (byte === BACKSLASH) escaped = true
        else if (byte === QUOTE) inString = false
      } else if (byte === QUOTE) inString = true
      else if (byte === OPEN_OBJECT || byte === OPEN_ARRAY) depth++
      else if (depth > 0) {
        if (byte === CLOSE_OBJECT || byte === CLOSE_ARRAY) depth--
      } else if (byte === COMMA || byte === CLOSE_ARRAY) return i
    }
    return chunk.length
  }
}

/** Gathers the bytes of one piece; beyond the limit it only counts them. */
function createCollector(maxBytes: number) {
  let parts: Buffer[] = []
  let size = 0
  return {
    add(part: Buffer): void {
      size += part.length
      if (size > maxBytes) parts = []
      else if (part.length > 0) parts.push(part)
    },
    /** What was gathered, if it is more than white space, and begins anew. */
    take(n: number): Piece | undefined {
      const bytes = parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts)
      const tooLong = size > maxBytes
      parts = []
      size = 0
      if (tooLong) return { n, problem: `it is longer than ${Math.round(maxBytes / 2 ** 20)} MiB` }
      if (skipBlank(bytes) === bytes.length) return undefined
      if (!isUtf8(bytes)) return { n, problem: 'it is not valid UTF-8' }
      return { n, text: bytes.toString('utf8') }
    },
  }
}
