import { type Config, parseConfig } from './config.ts'
import type { ConfigDefaults } from './configs/schema.ts'
import { type ConfigService, createConfigService } from './configs/service.ts'
import { type Logger, silentLog } from './core/log.ts'
import type { Database } from './db/database.ts'
import type { StatementTrace } from './db/driver.ts'
import { requireMigrated, upgrade } from './db/migrate.ts'
import { loadMigrations } from './db/migrations.ts'
import { openPglite } from './db/pglite.ts'
import { openPostgres } from './db/postgres.ts'
import { createMessageService, type MessageService } from './messages/service.ts'
import { createThreadService, type ThreadService } from './threads/service.ts'
import { createTransferService, type TransferService } from './transfer/service.ts'

export type ThreadbaseOptions = {
  /** `postgres://…`. Default: the embedded store in `dataDir`. */
  databaseUrl?: string
  /** Directory of the embedded store. Default `.threadbase`. */
  dataDir?: string
  /** The PostgreSQL schema that holds the tables. Default `threadbase`. */
  databaseSchema?: string
  /** Whether to apply missing migrations while opening. Default true; false fails with `unavailable` when some are missing. */
  migrate?: boolean
  /** Values for threads that set none. */
  defaults?: Partial<ConfigDefaults>
  /** A pino logger or its like. Default: nothing is logged. */
  log?: Logger
  /** Environment variables to read what the options leave out. Default: none. */
  env?: Record<string, string | undefined>
}

export type Threadbase = AsyncDisposable & {
  readonly threads: ThreadService
  readonly messages: MessageService
  readonly configs: ConfigService
  /** Import and export of conversations. */
  readonly transfer: TransferService
  /** The SQL port below the services. */
  readonly database: Database
  /** Lets running statements finish, then closes every connection and file. */
  close(): Promise<void>
}

/**
 * Opens Threadbase: the database that the options or the environment name, migrated, with the services on it.
 * @throws invalid_input for a bad option; unavailable when the database does not answer; conflict when another
 *   process has the embedded store open
 */
export async function openThreadbase(options: ThreadbaseOptions = {}): Promise<Threadbase> {
  return openConfigured(toConfig(options), options.log ?? silentLog)
}

/** As {@link openThreadbase}, from a configuration that is parsed already. */
export async function openConfigured(
  config: Config,
  log: Logger,
  trace?: StatementTrace,
): Promise<Threadbase> {
  const database = await openDatabase(config, log, trace)
  try {
    const migrations = await loadMigrations()
    if (config.migrateAtStart) {
      await upgrade(database, migrations, 'head', ({ revision, name, ms }) =>
        log.info({ revision, name, ms }, 'migrated'),
      )
    } else {
      await requireMigrated(database, migrations)
    }
  } catch (error) {
    await database.close()
    throw error
  }
  return createThreadbase(database, config)
}

/** The database of a configuration, as it is: not migrated. */
export function openDatabase(config: Config, log: Logger, trace?: StatementTrace): Promise<Database> {
  const common = { schema: config.databaseSchema, log, trace }
  if (config.databaseUrl === undefined) return openPglite({ ...common, dataDir: config.dataDir })
  const { databaseUrl: url, poolSize, maxOverflow, idleTimeoutS, startTimeoutS } = config
  const { queryTimeoutS, preparedStatements } = config
  return openPostgres({
    ...common,
    url,
    poolSize,
    maxOverflow,
    idleTimeoutS,
    startTimeoutS,
    queryTimeoutS,
    preparedStatements,
  })
}

/** The services on a database that is open and migrated. */
export function createThreadbase(database: Database, { defaults }: Pick<Config, 'defaults'>): Threadbase {
  const close = () => database.close()
  const { db, parallelism: lanes } = database
  const threads = createThreadService(db)
  const messages = createMessageService(db, { lanes })
  return {
    threads,
    messages,
    transfer: createTransferService(db, { threads, messages, lanes }),
    configs: createConfigService(db, defaults),
    database,
    close,
    [Symbol.asyncDispose]: close,
  }
}

function toConfig(options: ThreadbaseOptions): Config {
  const env = { ...options.env }
  // an application that names a directory wants the embedded store there, whatever the environment says
  if (options.dataDir !== undefined) env.DATABASE_URL = undefined
  const given = {
    DATABASE_URL: options.databaseUrl,
    DATA_DIR: options.dataDir,
    DATABASE_SCHEMA: options.databaseSchema,
  }
  for (const [name, value] of Object.entries(given)) if (value !== undefined) env[name] = value
  const config = parseConfig(env)
  return {
    ...config,
    migrateAtStart: options.migrate ?? config.migrateAtStart,
    defaults: { ...config.defaults, ...options.defaults },
  }
}
