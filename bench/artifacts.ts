import { createHash, randomBytes } from 'node:crypto'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { mkdir, open, rename, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { keyOf } from '../src/blobs/blobs.ts'
import { openThreadbase } from '../src/index.ts'
import type { Threadbase } from '../src/threadbase.ts'
import { collectRows } from './artifact-garbage.ts'
import { gigabyteRows } from './artifact-gigabyte.ts'
import { alternate, type BenchOptions, machineFacts, perSecond, type Row, report } from './harness.ts'
import { startPostgres } from './postgres.ts'

const UPLOADS = 10_000
const AT_ONCE = 16
const BYTES = 65_536
const ROUNDS = 3
const scope = { userId: 'local' }

const PARTS: Record<string, (tb: Threadbase, work: Work) => Promise<Row[]>> = {
  gigabyte: (_tb, { url, rounds = ROUNDS }) => gigabyteRows(url, rounds),
  many: (tb, { dir, rounds = ROUNDS }) => manyRows(tb, dir, rounds),
  collect: (tb, { dir }) => collectRows(tb, join(dir, 'blobs')),
}
type Work = { url: string; dir: string; rounds?: number }

/** Bytes as files: one large upload, many small ones, and the removal of what nobody names. */
export async function benchArtifacts({ only = Object.keys(PARTS), rounds }: BenchOptions): Promise<void> {
  const postgres = startPostgres()
  const dir = mkdtempSync(join(tmpdir(), 'threadbase-bench-bytes-'))
  try {
    const tb = await openThreadbase({ env: { DATABASE_URL: postgres.url, DATA_DIR: dir }, embeddings: false })
    try {
      const facts = await machineFacts(tb.database)
      const rows: Row[] = []
      for (const part of only) {
        rows.push(...((await PARTS[part]?.(tb, { url: postgres.url, dir, rounds })) ?? []))
      }
      report('artifacts', facts, rows)
    } finally {
      await tb.close()
    }
  } finally {
    rmSync(dir, { recursive: true, force: true })
    postgres.stop()
  }
}

/** 10,000 uploads, of which every second one repeats the one before it. */
async function manyRows(tb: Threadbase, dir: string, rounds: number): Promise<Row[]> {
  const thread = await tb.threads.create(scope)
  let stored = 0
  const ours = async (seed: Buffer) => {
    const before = await storedBytes(tb)
    const rate = await run((i) => tb.artifacts.create(scope, thread.id, contentOf(seed, i)))
    stored = (await storedBytes(tb)) - before
    return rate
  }
  const plain = (seed: Buffer, isSafe: boolean) => {
    const root = mkdtempSync(join(dir, 'plain-'))
    return run((i) => hashAndPut(root, contentOf(seed, i), isSafe)).finally(() =>
      rmSync(root, { recursive: true }),
    )
  }
  const rates = await alternate(rounds, {
    synced: () => plain(randomBytes(16), true),
    ours: () => ours(randomBytes(16)),
    unsynced: () => plain(randomBytes(16), false),
  })
  const half = (UPLOADS / 2) * BYTES
  const ratio = rates.ours / rates.synced
  return [
    {
      work: `${UPLOADS.toLocaleString('en')} uploads of 64 KB, ${AT_ONCE} at a time, half repeat`,
      figure: perSecond(rates.ours),
      limit: `hash, then put (synced) ${perSecond(rates.synced)}`,
      ratio,
      target: '≥ 0.8',
      met: ratio >= 0.8,
      raw: `without sync ${perSecond(rates.unsynced)}`,
      rawRatio: rates.ours / rates.unsynced,
    },
    {
      work: 'bytes stored of them',
      figure: `${(stored / 1e6).toFixed(1)} MB of ${((UPLOADS * BYTES) / 1e6).toFixed(1)} MB`,
      ratio: stored / (UPLOADS * BYTES),
      target: '0.5',
      met: stored === half,
    },
  ]
}

/** Uploads a second. */
async function run(upload: (i: number) => Promise<unknown>): Promise<number> {
  const started = performance.now()
  let next = 0
  const lane = async () => {
    while (next < UPLOADS) await upload(next++)
  }
  await Promise.all(Array.from({ length: AT_ONCE }, lane))
  return UPLOADS / ((performance.now() - started) / 1_000)
}

function contentOf(seed: Buffer, i: number): Buffer {
  const bytes = Buffer.alloc(BYTES, seed)
  bytes.writeUInt32BE(i >> 1)
  return bytes
}

async function storedBytes(tb: Threadbase): Promise<number> {
  let bytes = 0
  for await (const { size } of tb.blobs.list()) bytes += size
  return bytes
}

/** What a script does that stores bytes under their hash. */
async function hashAndPut(root: string, bytes: Buffer, isSafe: boolean): Promise<void> {
  const path = join(root, keyOf(createHash('sha256').update(bytes).digest('hex')))
  if (existsSync(path)) return
  await mkdir(dirname(path), { recursive: true })
  if (!isSafe) return writeFile(path, bytes)
  const part = `${path}.${randomBytes(4).toString('hex')}`
  const file = await open(part, 'wx')
  await file.writeFile(bytes)
  await file.datasync()
  await file.close()
  await rename(part, path)
}
