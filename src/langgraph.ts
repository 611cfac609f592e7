import { ThreadbaseSaver as Saver, type SaverOptions } from './checkpoints/service.ts'
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
    const { schema = DEFAULT_SCHEMA, preparedStatements, rls, appRole, log = silentLog, ...saver } = options
    const database = usePool(pool, { schema, preparedStatements, rls, appRole, log })
    super(database, saver)
    this.#database = database
  }

  /** Makes the tables, or brings them up to date. Any number of processes may do so at the same time. @throws unavailable */
  async setup(): Promise<void> {
    await upgrade(this.#database, await loadMigrations())
    await prepareRls(this.#database, { grant: true })
  }
}
