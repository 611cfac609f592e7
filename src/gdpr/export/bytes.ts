import type { Blobs } from '../../blobs/blobs.ts'
import { decodeText } from '../../core/json.ts'
import { setNewest } from '../../core/newest.ts'
import type { Db } from '../../db/schema.ts'
import type { Archive } from './archive.ts'
import type { FileFacts, MissingBytes } from './manifest.ts'
import { safeName } from './names.ts'
import * as repo from './repo.ts'

type Table = 'artifacts' | 'files'

const BATCH = 200
const ID_BYTES = 16
// equal bytes are in the archive once, as far as this can tell
const MAX_KNOWN = 100_000
const PACKED =
  /^(image\/(?!svg|bmp)|audio\/(?!x?-?wav)|video\/|application\/(zip|gzip|x-7z|x-xz|zstd|pdf|vnd\.openxml))/

/**
 * Where the bytes of rows come in the archive. They are written when all rows have been read, so that no snapshot of the
 * database lasts as long as they take; until then an id is remembered of each, and nothing else.
 */
export function createByteList() {
  const paths = new Map<string, string>()
  const ids: Record<Table, Buffer[]> = { artifacts: [], files: [] }
  const ownPath = (table: Table, { id, name }: Pick<repo.NamedBytes, 'id' | 'name'>) =>
    `${table}/${id}/${safeName(decodeText(name))}`

  return {
    /** The path of the row's bytes: that of an earlier row with the same ones, where one is known. */
    pathOf(table: Table, row: repo.ExportedRow): string {
      const [id, sha256] = [String(row.id), String(row.sha256)]
      const known = paths.get(sha256)
      if (known !== undefined) return known
      const name = String(table === 'files' ? row.name : row.filename)
      const path = ownPath(table, { id, name })
      setNewest(paths, sha256, path, MAX_KNOWN)
      ids[table].push(Buffer.from(id.replaceAll('-', ''), 'hex'))
      return path
    },

    /** Writes the bytes. What is missing in the storage is told, and the rest goes on. */
    async write(
      archive: Archive,
      db: Db,
      blobs: Blobs,
      userId: string,
      tell: (facts: FileFacts) => void,
      miss: (missing: MissingBytes) => void,
    ): Promise<void> {
      for (const table of ['artifacts', 'files'] as const)
        for (let i = 0; i < ids[table].length; i += BATCH) {
          const batch = ids[table].slice(i, i + BATCH).map(toUuid)
          const found = new Map((await repo.findNamed(db, table, userId, batch)).map((row) => [row.id, row]))
          for (const id of batch) {
            const row = found.get(id)
            if (row === undefined) miss({ table, id, reason: 'deleted during the export' })
            else await writeOne(archive, blobs, { table, ...row, path: ownPath(table, row) }, tell, miss)
          }
        }
    },
  }
}

type Wanted = repo.NamedBytes & { table: Table; path: string }

async function writeOne(
  archive: Archive,
  blobs: Blobs,
  { table, id, sha256, size, mime, path }: Wanted,
  tell: (facts: FileFacts) => void,
  miss: (missing: MissingBytes) => void,
): Promise<void> {
  const about = { table, id, path, sha256, size }
  const stored = await blobs.find(sha256)
  if (stored === undefined) return miss({ ...about, reason: 'not in the storage' })
  const bytes = await blobs.read(sha256)
  const facts = await archive.add(path, bytes, { compress: !PACKED.test(mime), size: stored.size })
  tell({ path, ...facts })
  if (facts.sha256 !== sha256) miss({ ...about, reason: 'damaged: other bytes than were stored' })
}

function toUuid(bytes: Buffer): string {
  const hex = bytes.toString('hex', 0, ID_BYTES)
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
}
