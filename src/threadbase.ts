import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { type AuditService, createAuditService } from './audit/service.ts'
import type { Bus } from './bus/bus.ts'
import { createLocalBus } from './bus/local.ts'
import { openRedisBus } from './bus/redis.ts'
import type { Cache } from './cache/cache.ts'
import { createLimiter, type Limiter } from './cache/limiter.ts'
import { createMemoryCache } from './cache/memory.ts'
import { openRedisCache } from './cache/redis.ts'
import {
  type CheckpointOptions,
  type CheckpointService,
  createCheckpointService,
  type ThreadbaseSaver,
} from './checkpoints/service.ts'
import {
  createStoreService,
  type StoreServiceOptions,
  type ThreadbaseStore,
} from './checkpoints/store/service.ts'
import { type Config, parseConfig, withDataDir } from './config.ts'
import type { ConfigDefaults } from './configs/schema.ts'
import { type ConfigService, createConfigService } from './configs/service.ts'
import { readKey, writeKey } from './core/key-ring.ts'
import { type Logger, silentLog } from './core/log.ts'
import type { Database, RlsMode } from './db/database.ts'
import { requireMigrated, upgrade } from './db/migrate.ts'
import { loadMigrations } from './db/migrations.ts'
import { prepareRls } from './db/rls.ts'
import type { StatementTrace } from './db/statements.ts'
import {
  type AuthSettings,
  createIdentityService,
  type IdentityService,
  readOrMakeSecret,
} from './identity/service.ts'
import { createMessageService, type MessageService } from './messages/service.ts'
import { openDatabase } from './open-database.ts'
import { createThreadService, type ThreadService } from './threads/service.ts'
import { createTransferService, type TransferService } from './transfer/service.ts'

export type ThreadbaseOptions = {
  /** `postgres://…`. Default: the embedded store in `dataDir`. */
  databaseUrl?: string
  /** Directory of the embedded store. Default `.threadbase`. */
  dataDir?: string
  /** `redis://…` or `rediss://…`, for what several processes share. Default: it stays in this process. */
  redisUrl?: string
  /** The PostgreSQL schema that holds the tables. Default `threadbase`. */
  databaseSchema?: string
  /** Whether to apply missing migrations while opening. Default true; false fails with `unavailable` when some are missing. */
  migrate?: boolean
  /** `enforce`: row level security keeps a user's statements from the rows of others. Default `off`. See docs/run-on-postgresql.md. */
  databaseRls?: RlsMode
  /** Values for threads that set none. */
  defaults?: Partial<ConfigDefaults>
  /** How `checkpointer` stores LangGraph's state. */
  checkpoints?: CheckpointOptions
  /** How `store` keeps and finds LangGraph's long-term memory. */
  store?: StoreServiceOptions
  /** A pino logger or its like. Default: nothing is logged. */
  log?: Logger
  /** Environment variables to read what the options leave out. Default: none. */
  env?: Record<string, string | undefined>
}

export type Threadbase = AsyncDisposable & {
  readonly threads: ThreadService
  readonly messages: MessageService
  readonly configs: ConfigService
  /** LangGraph's checkpointer for any user: `configurable.user_id` says for whom. */
  readonly checkpointer: ThreadbaseSaver
  /** LangGraph's long-term memory for any user: the call says for whom, or the node that makes it. A run takes `forUser(id).store`. */
  readonly store: ThreadbaseStore
  /** Import and export of conversations. */
  readonly transfer: TransferService
  /** Users, their API keys and sign-ins, and who is behind a credential. */
  readonly identity: IdentityService
  /** Who did what to which record. */
  readonly audit: AuditService
  /** The SQL port below the services. */
  readonly database: Database
  /** The cache port: what may be forgotten, and counters. */
  readonly cache: Cache
  /** The wake-up port: messages between processes. */
  readonly bus: Bus
  /** Limits on how often something may be done, counted in the cache. */
  readonly limiter: Limiter
  /** What is one user's, whatever a config says. @throws invalid_input for an id that cannot be one */
  forUser(userId: string): ForUser
  /** Lets running statements finish, then closes every connection and file. */
  close(): Promise<void>
}

export type ForUser = {
  /** LangGraph's checkpointer, for the threads of this user. */
  readonly checkpointer: ThreadbaseSaver
  /** LangGraph's long-term memory of this user. */
  readonly store: ThreadbaseStore
}

/** What the services stand on beside the database. */
export type Ports = Pick<Threadbase, 'cache' | 'bus'>

/**
 * Opens Threadbase: the database that the options or the environment name, migrated, with the services on it.
 * @throws invalid_input for a bad option; unavailable when the database does not answer; conflict when another
 *   process has the embedded store open
 */
export async function openThreadbase(options: ThreadbaseOptions = {}): Promise<Threadbase> {
  return openConfigured(toConfig(options), options.log ?? silentLog, undefined, options)
}

/** As {@link openThreadbase}, from a configuration that is parsed already. */
export async function openConfigured(
  config: Config,
  log: Logger,
  trace?: StatementTrace,
  { checkpoints, store }: LangGraphOptions = {},
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
    await prepareRls(database, { grant: config.migrateAtStart })
    const auth = await withSecrets(config, log)
    const settings = { ...config, auth, log, checkpoints: await withEncryption(config, checkpoints), store }
    const ports = await openPorts(config, log)
    try {
      return await createThreadbase(database, settings, ports)
    } catch (error) {
      await Promise.all([ports.cache.close(), ports.bus.close()])
      throw error
    }
  } catch (error) {
    await database.close()
    throw error
  }
}

/** Cache and bus of a configuration. Redis being away fails neither: its calls are `unavailable` until it is back. */
export async function openPorts({ redisUrl, redisPrefix }: Config, log: Logger): Promise<Ports> {
  if (redisUrl === undefined) return openLocalPorts(log)
  const options = { url: redisUrl, prefix: redisPrefix, log }
  const [cache, bus] = await Promise.all([openRedisCache(options), openRedisBus(options)])
  return { cache, bus }
}

/** Cache and bus of this process alone. */
export function openLocalPorts(log: Logger): Ports {
  return { cache: createMemoryCache(), bus: createLocalBus(log) }
}

/** Tokens are signed with the secret of the configuration, else with one that the data directory keeps. */
async function withSecrets({ auth, dataDir, databaseUrl }: Config, log: Logger): Promise<AuthSettings> {
  if (auth.mode !== 'accounts' || auth.secrets !== undefined) return auth
  const file = join(dataDir, 'auth.secret')
  if (databaseUrl !== undefined)
    log.warn({ file }, 'AUTH_SECRET is not set: other servers will not take the tokens of this one')
  return { ...auth, secrets: [await readOrMakeSecret(file)] }
}

const ENCRYPTION_KEY = {
  create: () => writeKey(randomBytes(32)),
  isSecret: (text: string) => readKey(text) !== undefined,
}

/** What the application says comes before the environment; a key is made only where one is needed. */
async function withEncryption(
  { checkpoints: { encrypted, allowPlaintext }, encryptionKeys, dataDir }: Config,
  options: CheckpointOptions = {},
): Promise<CheckpointOptions> {
  if (!encrypted || options.encryption !== undefined) return options
  const keys = encryptionKeys ?? [await readOrMakeSecret(join(dataDir, 'encryption.key'), ENCRYPTION_KEY)]
  return { ...options, encryption: { keys, allowPlaintext } }
}

type LangGraphOptions = Pick<ThreadbaseOptions, 'checkpoints' | 'store'>
export type ServiceOptions = Pick<Config, 'defaults' | 'auth'> & {
  log: Logger
} & LangGraphOptions

/** The services on a database that is open and migrated; closing them closes what they were given. */
export async function createThreadbase(
  database: Database,
  { defaults, auth, log, checkpoints: checkpointOptions, store: storeOptions = {} }: ServiceOptions,
  { cache, bus }: Ports,
): Promise<Threadbase> {
  const { parallelism: lanes } = database
  const threads = createThreadService(database)
  const messages = createMessageService(database, { lanes })
  const checkpoints: CheckpointService = createCheckpointService(database, checkpointOptions)
  const stores = createStoreService(database, storeOptions, log)
  const audit = createAuditService(database.db)
  const limiter = createLimiter(cache, log)
  const identity = await createIdentityService({ database, cache, bus, limiter, audit, log }, auth)
  const close = async () => {
    // what it still has to write needs the database
    await identity.close()
    await Promise.all([bus.close(), cache.close(), database.close()])
  }
  return {
    threads,
    messages,
    transfer: createTransferService(database, { threads, messages, lanes }),
    configs: createConfigService(database, defaults),
    checkpointer: checkpoints.forAll,
    store: stores.forAll,
    forUser: (userId) => ({ checkpointer: checkpoints.forUser(userId), store: stores.forUser(userId) }),
    identity,
    audit,
    database,
    cache,
    bus,
    limiter,
    close,
    [Symbol.asyncDispose]: close,
  }
}

function toConfig(options: ThreadbaseOptions): Config {
  const env =
    options.dataDir === undefined ? { ...options.env } : withDataDir({ ...options.env }, options.dataDir)
  const given = {
    DATABASE_URL: options.databaseUrl,
    REDIS_URL: options.redisUrl,
    DATABASE_SCHEMA: options.databaseSchema,
    DATABASE_RLS: options.databaseRls,
  }
  for (const [name, value] of Object.entries(given)) if (value !== undefined) env[name] = value
  const config = parseConfig(env)
  return {
    ...config,
    migrateAtStart: options.migrate ?? config.migrateAtStart,
    defaults: { ...config.defaults, ...options.defaults },
  }
}
