import { ThreadbaseSaver as Saver, type SaverOptions } from './checkpoints/service.ts'
import { ThreadbaseStore as Store, type StoreOptions } from './checkpoints/store/service.ts'
import { type Logger, silentLog } from './core/log.ts'
import { type Database, DEFAULT_SCHEMA, type RlsMode } from './db/database.ts'
import { upgrade } from './db/migrate.ts'
import { loadMigrations } from './db/migrations.ts'
import { type PoolLike, usePool } from './db/postgres.ts'
import { prepareRls } from './db/rls.ts'

export type {
  EncryptionOptions,
  PruneOptions,
  Removed,
  SaverOptions,
  StateThread,
} from './checkpoints/service.ts'
export type {
  EmbeddingsLike,
  EmbedFunction,
  StoreCall,
  StoreIndex,
  StoreOptions,
  StorePut,
  StoreTtl,
} from './checkpoints/store/service.ts'
export { type ErrorCode, isThreadbaseError, ThreadbaseError } from './core/errors.ts'

export type PoolOptions = {
  /** The PostgreSQL schema that holds the tables. Default `threadbase`. */
  schema?: string
  /** False behind a pooler that hands out connections by transaction. Default true. */
  preparedStatements?: boolean
  /** See docs/run-on-postgresql.md. Default `off`. */
  rls?: RlsMode
  appRole?: string
  /** A pino logger or its like. Default: nothing is logged. */
  log?: Logger
}

/**
 * The checkpointer for an application with a `pg.Pool` of its own, which the application also ends. Call `setup()` once
 * before it is used.
 *
 *     const checkpointer = new ThreadbaseSaver(pool, { defaultUserId: 'me' })
 *     await checkpointer.setup()
 */
export class ThreadbaseSaver extends Saver {
  readonly #database: Database

  constructor(pool: PoolLike, options: SaverOptions & PoolOptions = {}) {
    const [database, saver] = openPool(pool, options)
    super(database, saver)
    this.#database = database
  }

  /** Makes the tables, or brings them up to date. Any number of processes may do so at the same time. @throws unavailable */
  setup(): Promise<void> {
    return setUp(this.#database)
  }
}

/**
 * The long-term memory for such an application, on the same tables.
 *
 *     const store = new ThreadbaseStore(pool, { defaultUserId: 'me', index: { dims: 1536, embeddings } })
 *     await store.setup()
 */
export class ThreadbaseStore extends Store {
  readonly #database: Database

  constructor(pool: PoolLike, options: StoreOptions & PoolOptions = {}) {
    const [database, store] = openPool(pool, options)
    super(database, { ...store, log: options.log })
    this.#database = database
  }

  /** As that of the checkpointer; one of both is enough. @throws unavailable */
  setup(): Promise<void> {
    return setUp(this.#database)
  }
}

function openPool<T extends PoolOptions>(pool: PoolLike, options: T): [Database, Omit<T, keyof PoolOptions>] {
  const { schema = DEFAULT_SCHEMA, preparedStatements, rls, appRole, log = silentLog, ...others } = options
  return [usePool(pool, { schema, preparedStatements, rls, appRole, log }), others]
}

async function setUp(database: Database): Promise<void> {
  await upgrade(database, await loadMigrations())
  await prepareRls(database, { grant: true })
}
