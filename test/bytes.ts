import { sql } from 'kysely'
import type { StoredBlob } from '../src/blobs/blobs.ts'
import type { TestDatabase } from './harness.ts'

/** Longer ago than anything that a test stages: the sweep takes it all. */
const FUTURE_MS = -60_000

/** The hashes that the storage has. */
export async function storedHashes({ tb }: TestDatabase): Promise<string[]> {
  const all: StoredBlob[] = []
  for await (const blob of tb.blobs.list()) all.push(blob)
  return all.map(({ sha256 }) => sha256)
}

/** What is under way in the storage, or was left there: all of it is removed. */
export const sweepStaged = ({ tb }: TestDatabase) => tb.blobs.sweepStaged(FUTURE_MS)

/** Lets a file, or an upload, have expired a second ago. */
export async function expire({ database }: TestDatabase, table: 'files' | 'uploads', id: string) {
  await sql`update ${sql.table(`${database.schema}.${table}`)} set expires_at = now() - interval '1 second'
    where id = ${id}::uuid`.execute(database.db)
}

/** The rows of a table, whoever they belong to. */
export async function countRows({ database }: TestDatabase, table: string): Promise<number> {
  const { rows } = await sql<{ n: number }>`
    select count(*)::int as n from ${sql.table(`${database.schema}.${table}`)}`.execute(database.db)
  return rows[0]?.n ?? 0
}

export async function readAll(source: AsyncIterable<Uint8Array | string>): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of source) chunks.push(Buffer.from(chunk))
  return Buffer.concat(chunks)
}

/** Bytes in chunks that fail after the last one. */
export async function* failingAfter(...chunks: string[]): AsyncGenerator<Uint8Array> {
  for (const chunk of chunks) yield Buffer.from(chunk)
  throw new Error('the source is gone')
}

/** Bytes that must not be read. */
export async function* unread(): AsyncGenerator<Uint8Array> {
  yield await Promise.reject(new Error('was read'))
}

/** Names as clients may send them: data, never paths. */
export const ODD_NAMES = [
  '../../../etc/passwd',
  '/etc/passwd',
  'C:\\windows\\system.ini',
  'a\0b.txt',
  'a\r\nset-cookie: x=1',
  '"; filename="evil.exe',
  '\u202egnp.exe',
  'half \ud800 of a pair',
  'é'.repeat(150),
  'x'.repeat(300),
  '😀'.repeat(250),
  '..',
  ' ',
  '__proto__',
  '%2e%2e%2f',
  "'; drop table files; --",
]
