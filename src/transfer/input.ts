import { pipeline, Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { ThreadbaseError } from '../core/errors.ts'
import type { ImportFormat } from './schema.ts'
import { skipBlank } from './split.ts'

export type Input = { format: ImportFormat; chunks: AsyncIterable<Buffer> }

// what white space may come before the byte that tells the format
const MAX_PEEK = 65_536

/**
 * Looks at the first bytes: unpacks gzip, removes a byte order mark, and tells the format by its first character
 * unless it is given.
 * @throws unsupported for a zip archive and for UTF-16
 */
export async function openInput(source: AsyncIterable<Uint8Array>, format?: ImportFormat): Promise<Input> {
  const packed = await peek(source, (head) => head.length >= 4)
  const plain = isGzip(packed.head) ? await peek(unzip(packed.all), (head) => head.length >= 4) : packed
  refuseOthers(plain.head)
  const text = await peek(withoutMark(plain.all), (head) => skipBlank(head) < head.length)
  const first = text.head[skipBlank(text.head)]
  return { format: format ?? (first === 0x5b ? 'chatgpt' : 'jsonl'), chunks: text.all }
}

const startsWith = (head: Buffer, ...magic: number[]) => magic.every((byte, i) => head[i] === byte)
const isGzip = (head: Buffer) => startsWith(head, 0x1f, 0x8b)

function refuseOthers(head: Buffer): void {
  if (startsWith(head, 0x50, 0x4b, 0x03, 0x04)) {
    throw new ThreadbaseError(
      'unsupported',
      'the file is a zip archive: unzip it and import the conversations.json that is in it',
    )
  }
  if (startsWith(head, 0xff, 0xfe) || startsWith(head, 0xfe, 0xff)) {
    throw new ThreadbaseError('unsupported', 'the file is UTF-16: convert it to UTF-8 first')
  }
}

type Peeked = { head: Buffer; all: AsyncIterable<Buffer> }

/** Reads until `enough` or the end; `all` gives everything, from the first byte. */
async function peek(source: AsyncIterable<Uint8Array>, enough: (head: Buffer) => boolean): Promise<Peeked> {
  const iterator = source[Symbol.asyncIterator]()
  let head: Buffer = Buffer.alloc(0)
  while (!enough(head) && head.length < MAX_PEEK) {
    const { value, done } = await iterator.next()
    if (done === true) break
    head = Buffer.concat([head, toBuffer(value)])
  }
  async function* all(): AsyncGenerator<Buffer> {
    try {
      if (head.length > 0) yield head
      for (;;) {
        const { value, done } = await iterator.next()
        if (done === true) return
        yield toBuffer(value)
      }
    } finally {
      await iterator.return?.()
    }
  }
  return { head, all: all() }
}

const toBuffer = (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

function unzip(source: AsyncIterable<Buffer>): AsyncIterable<Uint8Array> {
  // an error on either side reaches whoever reads the result
  return pipeline(Readable.from(source), createGunzip({ chunkSize: 65_536 }), () => {})
}

async function* withoutMark(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let first = true
  for await (const chunk of source) {
    yield first && startsWith(chunk, 0xef, 0xbb, 0xbf) ? chunk.subarray(3) : chunk
    first = false
  }
}

/** The source until the signal says stop, also while it waits for more; `onRead` gets the length of each chunk. */
export async function* untilStopped(
  source: AsyncIterable<Uint8Array>,
  signal: AbortSignal | undefined,
  onRead: (bytes: number) => void,
): AsyncGenerator<Uint8Array> {
  const iterator = source[Symbol.asyncIterator]()
  let stop = () => {}
  const onAbort = () => stop()
  signal?.addEventListener('abort', onAbort)
  try {
    while (signal?.aborted !== true) {
      const next = await new Promise<IteratorResult<Uint8Array> | undefined>((resolve, reject) => {
        stop = () => resolve(undefined)
        iterator.next().then(resolve, reject)
      })
      if (next === undefined || next.done === true) return
      onRead(next.value.length)
      yield next.value
    }
  } finally {
    signal?.removeEventListener('abort', onAbort)
    // a source that is waiting answers when more comes, which may be never
    const closed = iterator.return?.()
    if (signal?.aborted === true) closed?.catch(() => {})
    else await closed
  }
}

/** Whether reading failed because the packed bytes are damaged or cut off, not because of the disk. */
export function isDamagedGzip(error: unknown): boolean {
  const code = (error as { code?: unknown } | undefined)?.code
  return typeof code === 'string' && code.startsWith('Z_')
}
