import { isUtf8 } from 'node:buffer'
import { constants, type Stats } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { ThreadbaseError } from '../../core/errors.ts'
import { parseJson } from '../../core/json.ts'
import { findJsonError } from '../../core/json-position.ts'
import { codeOf, isMissing } from '../../files/system.ts'
import type { Conversation } from '../schema.ts'

/** What tells one content of a file from another. Only the kernel sets `ctimeMs`. */
export type Stamp = { ino: number; size: number; mtimeMs: number; ctimeMs: number }
export type Read<T> = { value: T; stamp: Stamp }
/** How a file's text becomes a value. @throws SyntaxError */
type Parse = (text: string) => unknown

// no text of this process can be much longer
const MAX_BYTES = 400_000_000
// somebody may be writing it in place, without a lock: other councils do
const YOUNG_MS = 2_000
const TRIES = 5
const PAUSE_MS = 25

const DEL = 0x7f
const BACKSLASH = 0x5c
const SMALL_U = 0x75
const HEX = Buffer.from('0123456789abcdef')

/** Whether two looks at a file saw the same content. */
export function isSame(a: Stamp, b: Stamp): boolean {
  return a.ctimeMs === b.ctimeMs && a.mtimeMs === b.mtimeMs && a.size === b.size && a.ino === b.ino
}

/**
 * A conversation's file, which has `id` for its name, whatever id it says itself. Links are not followed.
 * @returns undefined when there is no such file
 * @throws invalid_input with `file`, `line` and `column` when it is no conversation
 */
export async function readConversation(
  path: string,
  id: string,
  file: string,
): Promise<Read<Conversation> | undefined> {
  const read = await readObject(path, file, parseJson)
  if (read === undefined) return undefined
  const { value, stamp } = read
  const messages = value.messages ?? []
  // where they are missing they come first and last
  const document = { ...('id' in value ? {} : { id }), ...value, id, messages } as Conversation
  return { value: document, stamp }
}

/** As {@link readConversation}, as it is in the file. A turn is read so, too. */
export async function readObject(
  path: string,
  file: string,
  parse: Parse,
): Promise<Read<Record<string, unknown>> | undefined> {
  for (let tries = 1; ; tries++) {
    const read = await readStable(path)
    if (read === undefined) return undefined
    try {
      return { value: requireShape(parseBytes(read.bytes, file, parse), file), stamp: read.stamp }
    } catch (error) {
      if (tries === TRIES || Date.now() - read.stamp.mtimeMs > YOUNG_MS) throw error
      await delay(PAUSE_MS)
    }
  }
}

function parseBytes(bytes: Buffer | undefined, file: string, parse: Parse): unknown {
  if (bytes === undefined) throw broken(file, `it is larger than ${MAX_BYTES / 1e6} MB`)
  if (!isUtf8(bytes)) throw broken(file, 'it is no UTF-8')
  const text = bytes.toString('utf8')
  try {
    return parse(text)
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
    const at = findJsonError(text)
    const where = at === undefined ? '' : ` at line ${at.line}, column ${at.column}`
    throw broken(file, `it is no JSON${where}`, at, error)
  }
}

function requireShape(value: unknown, file: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw broken(file, 'it is no JSON object')
  const { messages = [] } = value as { messages?: unknown }
  if (!Array.isArray(messages)) throw broken(file, 'its messages are no list')
  return value as Record<string, unknown>
}

function broken(file: string, why: string, at: object = {}, cause?: unknown): ThreadbaseError {
  return new ThreadbaseError(
    'invalid_input',
    `${file} is no conversation: ${why}`,
    { file, ...at },
    { cause },
  )
}

/** The bytes, which nobody changed while they were read; undefined bytes are too many. */
async function readStable(path: string): Promise<{ bytes: Buffer | undefined; stamp: Stamp } | undefined> {
  const file = await openPlain(path)
  if (file === undefined) return undefined
  try {
    for (let tries = 1; ; tries++) {
      const before = await file.stat()
      // what may be a pipe or a device is nobody's conversation
      if (!before.isFile()) return undefined
      if (before.size > MAX_BYTES) return { bytes: undefined, stamp: stampOf(before) }
      const bytes = Buffer.alloc(before.size)
      const { bytesRead } = await readFully(file, bytes)
      const stamp = stampOf(await file.stat())
      if (isSame(stampOf(before), stamp) || tries === TRIES)
        return { bytes: bytes.subarray(0, bytesRead), stamp }
      await delay(PAUSE_MS)
    }
  } finally {
    await file.close()
  }
}

async function readFully(file: FileHandle, bytes: Buffer): Promise<{ bytesRead: number }> {
  let bytesRead = 0
  while (bytesRead < bytes.length) {
    const read = await file.read(bytes, bytesRead, bytes.length - bytesRead, bytesRead)
    if (read.bytesRead === 0) break
    bytesRead += read.bytesRead
  }
  return { bytesRead }
}

async function openPlain(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (error) {
    // a link, or a socket
    if (isMissing(error) || ['ELOOP', 'ENXIO'].includes(String(codeOf(error)))) return undefined
    throw error
  }
}

export function stampOf({ ino, size, mtimeMs, ctimeMs }: Stats): Stamp {
  return { ino, size, mtimeMs, ctimeMs }
}

/** As Python does: two spaces, and what is not printable ASCII as escapes, which any default encoding reads. */
export function writeDocument(value: object): Uint8Array {
  const text = JSON.stringify(value, null, 2)
  let escapes = 0
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) >= DEL) escapes++
  if (escapes === 0) return Buffer.from(text, 'latin1')
  // by hand: a regular expression takes seconds for megabytes of Cyrillic
  const bytes = Buffer.allocUnsafe(text.length + 5 * escapes)
  let end = 0
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code < DEL) bytes[end++] = code
    else {
      bytes[end++] = BACKSLASH
      bytes[end++] = SMALL_U
      for (let shift = 12; shift >= 0; shift -= 4) bytes[end++] = HEX[(code >> shift) & 15] as number
    }
  }
  return bytes
}
