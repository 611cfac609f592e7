import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import type { PendingUpload } from '../src/artifacts/schema.ts'
import type { Blobs } from '../src/blobs/blobs.ts'

export const sha256Of = (bytes: string | Uint8Array) => createHash('sha256').update(bytes).digest('hex')

/** What an upload of these bytes announces. */
export const announce = (bytes: string | Uint8Array) => ({
  sha256: sha256Of(bytes),
  size: Buffer.byteLength(bytes),
})

/** Puts bytes where a presigned URL says: into the storage itself, or past this server's route into its port. */
export async function putUpload(
  { local }: Pick<Blobs, 'local'>,
  { url, headers }: Pick<PendingUpload, 'url' | 'headers'>,
  bytes: string | Uint8Array,
): Promise<void> {
  if (local === undefined) {
    const { ok, status } = await fetch(url, { method: 'PUT', headers, body: Buffer.from(bytes) })
    if (!ok) throw new Error(`the storage answered ${status}`)
    return
  }
  const { pathname, searchParams } = new URL(url, 'http://localhost')
  const name = pathname.split('/').at(-1) as string
  await local.put(name, Object.fromEntries(searchParams), Readable.from([Buffer.from(bytes)]))
}
