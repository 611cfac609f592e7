import { execFile } from 'node:child_process'
import { createHash, randomFillSync } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { alternate, type Row, root } from './harness.ts'
import { startServer } from './server.ts'

const BYTES = 1e9
const CHUNK = 1 << 20
const MEMORY_MB = 64

/** A gigabyte, other bytes each time, in two chunks that take turns: neither time nor memory of the source counts. */
export async function* gigabyte(bytes = BYTES): AsyncGenerator<Buffer> {
  const chunks = [0, 1].map(() => randomFillSync(Buffer.allocUnsafeSlow(CHUNK)))
  for (let left = bytes, i = 0; left > 0; left -= CHUNK, i++) {
    const chunk = chunks[i % 2] as Buffer
    chunk.writeUInt32BE(i)
    yield chunk.subarray(0, Math.min(CHUNK, left))
  }
}

const rateOf = (ms: number) => BYTES / 1e6 / (ms / 1_000)
const mbPerSecond = (rate: number) => `${Math.round(rate).toLocaleString('en')} MB/s`

/** In MB a second. Each contestant is the same loop over the same chunks. */
export async function gigabyteRows(url: string, rounds: number): Promise<Row[]> {
  const dir = mkdtempSync(join(tmpdir(), 'threadbase-bench-gigabyte-'))
  const server = await startServer(join(root, 'src/cli/main.ts'), {
    DATABASE_URL: url,
    DATA_DIR: join(dir, 'server'),
  })
  const peaks: number[] = []
  try {
    // what every server has that was at work
    for (let i = 0; i < 20; i++) await post(server.url, 1e6)
    const idle = resetPeak(server.pid)
    const rates = await alternate(rounds, {
      sha256: () => clock(hashAlone),
      writing: () => clock(() => writeAlone(join(dir, 'alone'))),
      library: async () => {
        const { ms, mb } = await inChild(url, join(dir, 'library'))
        peaks.push(mb)
        return rateOf(ms)
      },
      http: () => clock(() => post(server.url)),
    })
    const uploadMb = residentMb(server.pid, 'VmHWM') - idle
    const rested = resetPeak(server.pid)
    const download = await clock(() => get(server.url))
    const downloadMb = residentMb(server.pid, 'VmHWM') - rested
    const slower = Math.min(rates.sha256, rates.writing)
    const limit = `sha256 alone ${mbPerSecond(rates.sha256)}, writing alone ${mbPerSecond(rates.writing)}`
    const ofLimit = (rate: number) => ({ limit, ratio: rate / slower, target: '≥ 0.7' })
    const memory = (mb: number) => ({
      figure: `${mb.toFixed(0)} MB`,
      target: `< ${MEMORY_MB} MB`,
      met: mb < MEMORY_MB,
    })
    return [
      {
        work: 'upload 1 GB, library',
        figure: mbPerSecond(rates.library),
        ...ofLimit(rates.library),
        met: rates.library / slower >= 0.7,
      },
      { work: 'upload 1 GB, HTTP, client included', figure: mbPerSecond(rates.http), ...ofLimit(rates.http) },
      { work: 'memory of it, library: peak above idle', ...memory(Math.max(...peaks)) },
      { work: 'memory of it, server: peak above idle', ...memory(uploadMb) },
      { work: 'download 1 GB, HTTP, client included', figure: mbPerSecond(download) },
      { work: 'memory of it, server: peak above idle', ...memory(downloadMb) },
    ]
  } finally {
    await server.stop()
    rmSync(dir, { recursive: true, force: true })
  }
}

async function clock(work: () => Promise<void>): Promise<number> {
  const started = performance.now()
  await work()
  return rateOf(performance.now() - started)
}

async function hashAlone(): Promise<void> {
  const hash = createHash('sha256')
  for await (const chunk of gigabyte()) hash.update(chunk)
  hash.digest()
}

async function writeAlone(path: string): Promise<void> {
  const file = await open(path, 'w')
  for await (const chunk of gigabyte()) await file.write(chunk)
  await file.datasync()
  await file.close()
  rmSync(path)
}

async function inChild(url: string, dir: string): Promise<{ ms: number; mb: number }> {
  const child = fileURLToPath(new URL('artifact-upload-child.ts', import.meta.url))
  const env = { ...process.env, DATABASE_URL: url, DATA_DIR: dir }
  const { stdout } = await promisify(execFile)(process.execPath, [child], { env })
  rmSync(dir, { recursive: true, force: true })
  return JSON.parse(stdout) as { ms: number; mb: number }
}

async function post(url: URL, bytes = BYTES): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const sent = request(
      new URL('/api/files?filename=gigabyte', url),
      { method: 'POST', headers: { 'content-type': 'application/octet-stream', 'content-length': bytes } },
      (answer) => {
        answer.resume().on('end', () => (answer.statusCode === 201 ? resolve() : reject(answer.statusCode)))
      },
    )
    pipeline(Readable.from(gigabyte(bytes)), sent).catch(reject)
  })
}

async function get(url: URL): Promise<void> {
  const list = (await (await fetch(new URL('/api/files?limit=1', url))).json()) as { items: { id: string }[] }
  const { body } = await fetch(new URL(`/api/files/${list.items[0]?.id}/content`, url))
  let bytes = 0
  for await (const chunk of body ?? []) bytes += (chunk as Uint8Array).length
  if (bytes !== BYTES) throw new Error(`${bytes} bytes came`)
}

/** Resident memory now, from which on the kernel keeps the highest anew. */
export function resetPeak(pid: number): number {
  writeFileSync(`/proc/${pid}/clear_refs`, '5')
  return residentMb(pid, 'VmRSS')
}

export function residentMb(pid: number, what: 'VmRSS' | 'VmHWM'): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(new RegExp(`${what}:\\s+(\\d+) kB`).exec(status)?.[1]) / 1_000
}
