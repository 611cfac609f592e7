import type { Blobs } from '../../blobs/blobs.ts'
import type { PlainState } from '../../checkpoints/service.ts'
import type { CredentialService, VariableService } from '../../credentials/service.ts'
import type { Database } from '../../db/database.ts'
import type { Db } from '../../db/schema.ts'
import { type Archive, createArchive } from './archive.ts'
import { createByteList } from './bytes.ts'
import { createLines } from './lines.ts'
import { type FileFacts, type MissingBytes, manifestOf, readmeOf } from './manifest.ts'
import { pagesOf } from './pages.ts'
import * as repo from './repo.ts'
import { providerKeys, variables } from './secrets.ts'
import { EXPORTED } from './tables.ts'

export type ExportParts = {
  database: Pick<Database, 'forUser' | 'engine'>
  blobs: Blobs
  state: PlainState
  credentials: Pick<CredentialService, 'apiKeys'>
  variables: Pick<VariableService, 'list'>
}

export type ExportProgress = {
  /** The file that is being written. */
  file: string
  /** Lines and bytes of contents that are written by now. */
  records: number
  bytes: number
}

/** What was exported. */
export type ExportReport = {
  /** Files of the archive, its manifest left out. */
  files: FileFacts[]
  missing: MissingBytes[]
}

type Names = keyof typeof EXPORTED

/**
 * Makes the archive of a user while it is read: `done` settles when it is whole, or failed, as its stream does.
 *
 * On PostgreSQL all rows are read in one snapshot, which ends before the bytes begin. The embedded store has one
 * connection, which a long transaction would keep from all others: there each page is a statement of its own.
 */
export function startExport(
  parts: ExportParts,
  userId: string,
  onProgress: (progress: ExportProgress) => void,
): { archive: Archive; done: Promise<ExportReport> } {
  const startedAt = new Date()
  const archive = createArchive(startedAt)
  const done = writeAll(parts, archive, userId, startedAt, onProgress)
  done.catch((error) => archive.fail(error as Error))
  return { archive, done }
}

async function writeAll(
  parts: ExportParts,
  archive: Archive,
  userId: string,
  startedAt: Date,
  onProgress: (progress: ExportProgress) => void,
): Promise<ExportReport> {
  const { database, blobs } = parts
  const db = database.forUser(userId)
  const report: ExportReport = { files: [], missing: [] }
  const progress = { records: 0, bytes: 0 }
  const tell = (facts: FileFacts) => {
    report.files.push(facts)
    progress.bytes += facts.bytes
    onProgress({ file: facts.path, ...progress })
  }
  const addText = async (path: string, text: string) =>
    tell({ path, ...(await archive.add(path, once(text))) })
  const addLines = async (path: string, pages: AsyncIterable<unknown[]>) => {
    let records = 0
    const lines = async function* () {
      for await (const page of pages) {
        for (let i = 0; i < page.length; i += LINES_AT_ONCE) yield* linesOf(page.slice(i, i + LINES_AT_ONCE))
        records += page.length
        progress.records += page.length
        onProgress({ file: path, ...progress })
      }
    }
    tell({ path, ...(await archive.add(path, lines())), records })
  }

  const bytes = createByteList()
  const lineOf = createLines(userId, parts.state, bytes.pathOf)
  await addText('README.txt', readmeOf(userId, startedAt))
  await addLines('provider_keys.jsonl', providerKeys(parts, db, userId))
  await addLines('variables.jsonl', variables(parts, db, userId))
  const snapshot = database.engine === 'postgres'
  await within(db, snapshot, async (handle) => {
    const account = await repo.readAccount(handle, userId)
    await addText('account.json', `${JSON.stringify(account ?? null, null, 2)}\n`)
    for (const name of Object.keys(EXPORTED) as Names[])
      await addLines(EXPORTED[name].file, pagesOf(handle, EXPORTED[name], userId, lineOf(name)))
  })
  await bytes.write(archive, db, blobs, userId, tell, (missing) => report.missing.push(missing))
  await archive.add('manifest.json', once(manifestOf({ userId, startedAt, snapshot, ...report })))
  archive.end()
  return report
}

async function within(
  db: ReturnType<Database['forUser']>,
  snapshot: boolean,
  work: (handle: Db) => Promise<void>,
): Promise<void> {
  if (!snapshot) return work(db)
  await db
    .transaction()
    .setIsolationLevel('repeatable read')
    .setAccessMode('read only')
    .execute((tx) => work(tx))
}

async function* once(text: string): AsyncGenerator<string> {
  yield text
}

const LINES_AT_ONCE = 100
const CHUNK_CHARS = 1_000_000

/** As few texts as do not become too long. */
function* linesOf(documents: unknown[]): Generator<string> {
  let text = ''
  for (const document of documents) {
    text += `${JSON.stringify(document)}\n`
    if (text.length < CHUNK_CHARS) continue
    yield text
    text = ''
  }
  yield text
}
