import type { Logger } from '../../core/log.ts'
import type { Database } from '../../db/database.ts'
import {
  type Extension,
  isVectorLoss,
  iterates,
  readyExtension,
  reasonOf,
} from '../../db/vector-extension.ts'
import * as repo from './repo.ts'

export { type BuildOptions, type BuildReport, buildIndex } from './build.ts'
export type { IndexType } from './repo.ts'

/**
 * What there is to compare vectors with. Where it is available, `messages.embedding` and
 * `chain_analysis_results.embedding` are columns of the type `vector(384)`; vectors of one `embedding_model` are
 * compared by cosine distance, `operator(schema.<=>)`.
 */
export type VectorSpace =
  | { available: false }
  | {
      available: true
      /** Of the extension `vector`; its types and operators are named with it. */
      schema: string
      version: string
      /** On messages; results of sessions have none. `none`: vectors are compared one by one. */
      index: repo.IndexType | 'none'
      /** Whether a search in the index goes on when a filter took away what it found (pgvector 0.8). */
      iterates: boolean
      /** How many lists of an IVFFlat index a search looks at; 0 for any other. */
      probes: number
    }

/** Knows what there is for vectors, and notices when it is gone. */
export type Vectors = {
  /** Cheap: asked of the database anew after some seconds only. Not inside a transaction. @throws unavailable */
  space(): Promise<VectorSpace>
  /**
   * Whether an error of a statement with vectors says that the extension, or a column, is gone. Then `space` asks
   * anew.
   */
  isLoss(error: unknown): boolean
  /** The next `space` asks anew. */
  forget(): void
}

export type VectorSettings = {
  /** What new indexes are. */
  index: repo.IndexType
  /** Of IVFFlat. Undefined: as many as suit the rows. */
  lists: number | undefined
  /** Of IVFFlat, how many lists are searched. Undefined: the square root of the lists. */
  probes: number | undefined
}

const KNOWN_FOR_MS = 5_000

type VectorDatabase = Pick<Database, 'db' | 'engine' | 'schema'>
type PrepareDatabase = VectorDatabase & Pick<Database, 'rls' | 'appRole'>

/** @param settings.probes see {@link VectorSettings} */
export function createVectors(
  { db, engine, schema }: VectorDatabase,
  { probes }: Pick<VectorSettings, 'probes'>,
): Vectors {
  let known: { space: Promise<VectorSpace>; until: number } | undefined
  const forget = () => {
    known = undefined
  }
  return {
    async space() {
      if (engine === 'none') return { available: false }
      const now = performance.now()
      if (known !== undefined && known.until > now) return known.space
      const mine = {
        space: repo.readSpace(db, schema).then((row) => toSpace(row, probes)),
        until: now + KNOWN_FOR_MS,
      }
      known = mine
      mine.space.catch(() => {
        if (known === mine) known = undefined
      })
      return mine.space
    },
    isLoss(error) {
      if (!isVectorLoss(error)) return false
      forget()
      return true
    },
    forget,
  }
}

function toSpace(row: repo.SpaceRow, probes: number | undefined): VectorSpace {
  const { schema, version, method, lists } = row
  const complete = repo.TABLES.every((table) => repo.isOurType(row.columns[table]))
  if (schema === null || version === null || !complete) return { available: false }
  return {
    available: true,
    schema,
    version,
    index: method ?? 'none',
    iterates: iterates({ schema, version }),
    probes: method === 'ivfflat' ? (probes ?? Math.ceil(Math.sqrt(lists ?? 100))) : 0,
  }
}

/** An index on more rows than these, or in a larger table, is made by command only: it takes time, and locks. */
const FEW_ROWS = 2_000
const SMALL_TABLE_BYTES = 64 * 1024 * 1024

const WITHOUT = 'there is no search by meaning, and texts get no embeddings'

export type PrepareOptions = Pick<VectorSettings, 'index'> & {
  /** Whether the schema may be changed; else the log says what is missing. */
  change: boolean
}

/**
 * Makes ready what embeddings are kept in: the extension `vector`, columns `embedding` and, on PostgreSQL, an index on
 * them while few messages have one. Nothing is rewritten, and no table is kept from others for longer than a moment.
 * Where something is not to be had, the log says so, with the SQL for an administrator, and all else works.
 */
export async function prepareVectors(
  database: PrepareDatabase,
  options: PrepareOptions,
  log: Logger,
): Promise<void> {
  if (database.engine === 'none') return
  const { db, schema } = database
  if (!options.change) return checkVectors(await repo.readSpace(db, schema), log)
  const extension = await readyExtension(database, WITHOUT, log)
  if (extension === undefined) return
  await readyRole(database, extension, log)
  if (!(await readyColumns(database, extension, log))) return
  if (database.engine === 'postgres') await readyIndex(database, extension, options.index, log)
}

function checkVectors(row: repo.SpaceRow, log: Logger): void {
  if (!toSpace(row, undefined).available)
    log.warn({}, `what embeddings need is missing: run \`threadbase db upgrade\`; until then ${WITHOUT}`)
}

/** Statements of users compare vectors, too: their role must see the types of the extension. */
async function readyRole(
  { db, rls, appRole }: PrepareDatabase,
  extension: Extension,
  log: Logger,
): Promise<void> {
  if (rls === 'off' || (await repo.maySee(db, appRole, extension.schema))) return
  const statement = repo.usageStatement(appRole, extension.schema)
  try {
    await db.transaction().execute((tx) => repo.changeTables(tx, extension.schema, [statement]))
  } catch (error) {
    log.warn(
      { reason: reasonOf(error), sql: statement },
      'the role of DATABASE_RLS_ROLE may not see the extension vector: there is no search by meaning',
    )
  }
}

/** False when messages and results of sessions do not both have their column. */
async function readyColumns(
  { db, schema }: VectorDatabase,
  extension: Extension,
  log: Logger,
): Promise<boolean> {
  const { columns } = await repo.readSpace(db, schema)
  const wrong = repo.TABLES.filter((table) => columns[table] !== undefined && !repo.isOurType(columns[table]))
  for (const table of wrong)
    log.warn({ table, type: columns[table] }, `a column embedding of another type is in the way: ${WITHOUT}`)
  if (wrong.length > 0) return false
  const statements = repo.TABLES.filter((table) => columns[table] === undefined).map((table) =>
    repo.columnStatement(schema, table, extension),
  )
  if (statements.length === 0) return true
  try {
    await db.transaction().execute(async (tx) => {
      await repo.changeTables(tx, schema, statements)
      await repo.noteLost(tx)
    })
    return true
  } catch (error) {
    const facts = { reason: reasonOf(error), sql: `${statements.join(';\n')};` }
    log.warn(facts, `the columns of embeddings cannot be added: ${WITHOUT}`)
    return false
  }
}

async function readyIndex(
  { db, schema }: VectorDatabase,
  extension: Extension,
  type: repo.IndexType,
  log: Logger,
): Promise<void> {
  const { method, unfinished } = await repo.readSpace(db, schema)
  if (method !== null || unfinished) return noteIndex({ method, unfinished, type }, log)
  const { embedded, bytes } = await repo.measureMessages(db, schema, FEW_ROWS + 1)
  const few = embedded <= FEW_ROWS
  // the lists of IVFFlat are made from the rows that are there
  if (type === 'ivfflat' && few) return
  if (!few || bytes > SMALL_TABLE_BYTES) {
    log.warn(
      {},
      'messages have no index of their embeddings, and are too many to make it now: run `threadbase embeddings index`',
    )
    return
  }
  const statement = repo.indexStatement(schema, extension, { type })
  try {
    await db.transaction().execute((tx) => repo.changeTables(tx, schema, [statement]))
  } catch (error) {
    log.warn(
      { reason: reasonOf(error), sql: statement },
      'the index of embeddings cannot be made: they are compared one by one',
    )
  }
}

type IndexState = { method: repo.IndexType | null; unfinished: boolean; type: repo.IndexType }

function noteIndex({ method, unfinished, type }: IndexState, log: Logger): void {
  if (unfinished)
    log.warn(
      {},
      'an index of embeddings is not finished: unless it is being made, run `threadbase embeddings index`',
    )
  if (method !== null && method !== type)
    log.info(
      { index: method, wanted: type },
      'the index of embeddings is of another type than VECTOR_INDEX: `threadbase embeddings index` replaces it',
    )
}
