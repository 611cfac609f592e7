import { ThreadbaseError } from '../../core/errors.ts'
import { type Scope, userOf } from '../../core/scope.ts'
import type { Database } from '../../db/database.ts'
import type { Db } from '../../db/schema.ts'
import { lockThreads } from '../upkeep/repo.ts'
import * as repo from './repo.ts'
import { countItems, takeItems } from './store/repo.ts'

export type AdoptOptions = {
  /** Where the stock tables are. Default `public`. */
  schema?: string
  /** Counts what would be taken, writes nothing. */
  dryRun?: boolean
  /** For a serializer of one's own: values are taken as they are, lists are not split. */
  wholeValues?: boolean
  /** Stops before the next batch; the transaction that is under way is rolled back. */
  signal?: AbortSignal
  /** `of` is all that the peer has, in checkpoints and items; a report is as of then, and changes. */
  onProgress?(done: number, of: number, report: Readonly<AdoptReport>): void
}

export type AdoptReport = {
  /** Threads of which something was taken. */
  threads: number
  checkpoints: number
  writes: number
  /** Of the store. */
  items: number
  /** Items that the store here cannot have: an empty label, a key that is too long. */
  refusedItems: number
  /** Checkpoints that were here before. */
  known: number
  /** Checkpoints that are not taken, since their thread was deleted here. */
  deleted: number
  /** What the threads of which something was taken need, there and here, without indexes. */
  bytesBefore: number
  bytesAfter: number
  warnings: string[]
}

const NEWEST_MIGRATION = 4
const COLUMNS = {
  checkpoints: [
    'thread_id',
    'checkpoint_ns',
    'checkpoint_id',
    'parent_checkpoint_id',
    'checkpoint',
    'metadata',
  ],
  checkpoint_blobs: ['thread_id', 'checkpoint_ns', 'channel', 'version', 'type', 'blob'],
  checkpoint_writes: [
    'thread_id',
    'checkpoint_ns',
    'checkpoint_id',
    'task_id',
    'idx',
    'channel',
    'type',
    'blob',
  ],
}
const STORE_COLUMNS = ['namespace_path', 'key', 'value', 'created_at', 'updated_at', 'expires_at']

const THREADS_A_PAGE = 200
const ITEMS_A_PAGE = 1_000
const CHECKPOINTS_A_STATEMENT = 500
// of values, uncompressed: what a statement works on, and about what a transaction does
const BATCH_BYTES = 4_000_000
const GROUP_BYTES = 64_000_000
const GROUP_THREADS = 100

/**
 * Takes over what LangGraph's own checkpointer and store for PostgreSQL keep in a schema of the same database, for one
 * user. The peer's tables are read and not changed. What is here stays as it is; again, what is new there is taken.
 *
 * The rows go from table to table by SQL alone, not through this process and its encoder: a thread of a thousand steps
 * is half a gigabyte of whole lists there, of which three megabytes of elements and nodes are left here. The price is
 * that the splitting is written a second time, in values/repo.ts, and that nothing is encrypted or compressed but by
 * PostgreSQL.
 * @throws not_found without such tables; invalid_input for a schema or tables that cannot be meant
 */
export async function adoptCheckpoints(
  database: Database,
  scope: Scope,
  options: AdoptOptions = {},
): Promise<AdoptReport> {
  const userId = userOf(scope)
  const { schema = 'public', dryRun = false, wholeValues = false, signal, onProgress } = options
  const report: AdoptReport = {
    threads: 0,
    checkpoints: 0,
    writes: 0,
    items: 0,
    refusedItems: 0,
    known: 0,
    deleted: 0,
    bytesBefore: 0,
    bytesAfter: 0,
    warnings: [],
  }
  const peer = await findPeer(database, schema, report.warnings)
  const total = peer.checkpoints + peer.items
  let done = 0
  const advance = (by: number) => {
    done += by
    onProgress?.(Math.min(Math.round(done), total), total, report)
    signal?.throwIfAborted()
  }
  advance(0)
  if (peer.checkpoints > 0) {
    const work = { database, peer: peer.tables, userId, wholeValues, dryRun, report, advance }
    for await (const group of groupThreads(work)) await adoptGroup(work, group)
  }
  if (peer.items > 0 && !dryRun) await adoptItems(database.db, schema, userId, report, advance)
  return report
}

type Found = { tables: repo.Peer; checkpoints: number; items: number }

async function findPeer(database: Database, schema: string, warnings: string[]): Promise<Found> {
  const { db } = database
  if (database.engine !== 'postgres') {
    const message =
      "a stock checkpointer's tables are on PostgreSQL: set DATABASE_URL to the database that has them"
    throw new ThreadbaseError('invalid_input', message, { variable: 'DATABASE_URL' })
  }
  if (schema === database.schema)
    throw refused(
      `schema ${schema} is Threadbase's own: name the one with the tables of the stock checkpointer`,
      schema,
    )
  const columns = await repo.readColumns(db, schema, [
    ...Object.keys(COLUMNS),
    'checkpoint_migrations',
    'store',
  ])
  const hasCheckpoints = Object.keys(COLUMNS).some((table) => columns.has(table))
  const hasStore = STORE_COLUMNS.every((column) => columns.get('store')?.has(column))
  if (!hasCheckpoints && !hasStore) {
    const message = `schema ${schema} of the database has no tables of LangGraph's checkpointer or store for PostgreSQL`
    throw new ThreadbaseError('not_found', message, { schema })
  }
  for (const [table, names] of Object.entries(hasCheckpoints ? COLUMNS : {})) {
    const missing = names.filter((name) => columns.get(table)?.has(name) !== true)
    if (missing.length > 0)
      throw refused(
        `${schema}.${table} is not a table of LangGraph's checkpointer: it has no ${missing.join(', ')}`,
        schema,
      )
  }
  const version = columns.has('checkpoint_migrations') ? await repo.readVersion(db, schema) : null
  if (version !== null && version > NEWEST_MIGRATION) {
    warnings.push(
      `the tables in ${schema} are at migration ${version}; those of LangGraph.js that this version knows go up to ${NEWEST_MIGRATION}`,
    )
  }
  const hasTaskPath = columns.get('checkpoint_writes')?.has('task_path') ?? false
  const tables = { schema, hasTaskPath }
  return {
    tables,
    checkpoints: hasCheckpoints ? await repo.countCheckpoints(db, tables) : 0,
    items: hasStore ? await countItems(db, schema) : 0,
  }
}

function refused(message: string, schema: string): ThreadbaseError {
  return new ThreadbaseError('invalid_input', message, { schema })
}

type Work = {
  database: Database
  peer: repo.Peer
  userId: string
  wholeValues: boolean
  dryRun: boolean
  report: AdoptReport
  advance(by: number): void
}

function listPage(
  db: Database['db'],
  peer: repo.Peer,
  userId: string,
  after: string,
): Promise<repo.PeerThread[]> {
  return db.transaction().execute(async (tx) => {
    await repo.preferKeys(tx)
    return repo.listThreads(tx, peer, userId, after, THREADS_A_PAGE)
  })
}

/** Threads with something to take, as many as one transaction should. */
async function* groupThreads({
  database,
  peer,
  userId,
  report,
  advance,
}: Work): AsyncGenerator<repo.PeerThread[]> {
  let group: repo.PeerThread[] = []
  let bytes = 0
  let after: string | undefined = ''
  while (after !== undefined) {
    const page: repo.PeerThread[] = await listPage(database.db, peer, userId, after)
    for (const thread of page) {
      report.known += thread.checkpoints - thread.fresh - thread.removed
      report.deleted += thread.removed
      if (thread.fresh === 0 && thread.writes === 0) {
        advance(thread.checkpoints)
        continue
      }
      if (group.length >= GROUP_THREADS || (group.length > 0 && bytes + thread.bytes > GROUP_BYTES)) {
        yield group
        group = []
        bytes = 0
      }
      group.push(thread)
      bytes += thread.bytes
    }
    after = page.length < THREADS_A_PAGE ? undefined : page.at(-1)?.id
  }
  if (group.length > 0) yield group
}

/** All of the threads or nothing, with every other change of them kept waiting. */
async function adoptGroup(work: Work, group: repo.PeerThread[]): Promise<void> {
  const { database, peer, userId, report, advance } = work
  const ids = group.map(({ id }) => id)
  const size = group.reduce((sum, { checkpoints }) => sum + checkpoints, 0)
  if (work.dryRun) {
    report.threads += group.length
    for (const { fresh, writes, bytes } of group) {
      report.checkpoints += fresh
      report.writes += writes
      report.bytesBefore += bytes
    }
    advance(size)
    return
  }
  const taken = await database.db.transaction().execute(async (tx) => {
    await repo.preferKeys(tx)
    await lockThreads(tx, userId, ids)
    const { checkpoints, batches } = await repo.begin(tx, peer, userId, ids, BATCH_BYTES)
    for (let batch = 0; batch < batches; batch++) {
      await repo.takeValues(tx, userId, batch, work.wholeValues)
      advance(size / (batches + 1))
    }
    let count = 0
    for (let from = 1; from <= checkpoints; from += CHECKPOINTS_A_STATEMENT)
      count += await repo.takeCheckpoints(tx, peer, userId, from, CHECKPOINTS_A_STATEMENT)
    const writes = await repo.takeWrites(tx, peer, userId, ids)
    await repo.markAdopted(tx, userId, ids)
    return { batches, count, writes, ...(await repo.measure(tx, peer, userId, ids)) }
  })
  report.threads += group.length
  report.checkpoints += taken.count
  report.writes += taken.writes
  report.bytesBefore += taken.before
  report.bytesAfter += taken.after
  advance(size / (taken.batches + 1))
}

async function adoptItems(
  db: Db,
  schema: string,
  userId: string,
  report: AdoptReport,
  advance: (by: number) => void,
): Promise<void> {
  let after = { path: '', key: '' }
  for (;;) {
    const { read, taken, refused: left, last } = await takeItems(db, schema, userId, after, ITEMS_A_PAGE)
    if (last === undefined) return
    report.items += taken
    report.refusedItems += left
    after = last
    advance(read)
  }
}
