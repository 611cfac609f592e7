import { join } from 'node:path'
import {
  type ArtifactService,
  type BlobUpkeep,
  createArtifactService,
  createBlobUpkeep,
  createFileService,
  createKeeper,
  type FileService,
} from './artifacts/service.ts'
import { type AuditService, createAuditService } from './audit/service.ts'
import type { Blobs } from './blobs/blobs.ts'
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
import { type ConversationMove, createConversationMove } from './conversations/move/service.ts'
import { type ConversationStore, type Council, createCouncil } from './conversations/service.ts'
import { type KeySource, writeKey } from './core/key-ring.ts'
import { type Logger, silentLog } from './core/log.ts'
import {
  type CredentialService,
  createCredentialService,
  createKeySource,
  type VariableService,
} from './credentials/service.ts'
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
import { openBlobs } from './open-blobs.ts'
import { openConversationStores } from './open-conversations.ts'
import { openDatabase } from './open-database.ts'
import { createThreadService, type ThreadService } from './threads/service.ts'
import { createTransferService, type TransferService } from './transfer/service.ts'
import type { UsageService } from './usage/service.ts'

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
  /** Encrypt what is stored encrypted, 32 bytes each in base64 or base64url: the first encrypts, all decrypt. Comes before ENCRYPTION_KEY of `env`. */
  encryptionKeys?: readonly string[]
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
  /** Conversations of councils: questions with the answers of several models. */
  readonly conversations: ConversationStore
  /** Answers the questions of conversations by several models. */
  readonly council: Council
  /** Files of threads: what agents make and users add. */
  readonly artifacts: ArtifactService
  /** Files of a user outside threads. */
  readonly files: FileService
  /** Keeps stored bytes and database in step: removes what nobody names, finds what is missing or corrupt. */
  readonly upkeep: BlobUpkeep
  /** LangGraph's checkpointer for any user: `configurable.user_id` says for whom. */
  readonly checkpointer: ThreadbaseSaver
  /** LangGraph's long-term memory for any user: the call says for whom, or the node that makes it. A run takes `forUser(id).store`. */
  readonly store: ThreadbaseStore
  /** Import and export of conversations. */
  readonly transfer: TransferService
  /** Council conversations and usage from folders of JSON files, and back. */
  readonly conversationMove: ConversationMove
  /** Users, their API keys and sign-ins, and who is behind a credential. */
  readonly identity: IdentityService
  /** The keys that users bring for the providers of models, encrypted. */
  readonly credentials: CredentialService
  /** Named secrets and settings of users, encrypted. */
  readonly variables: VariableService
  /** How much each user asks, and may ask; tokens and costs. */
  readonly usage: UsageService
  /** Who did what to which record. */
  readonly audit: AuditService
  /** The SQL port below the services. */
  readonly database: Database
  /** The bytes port: bytes by their SHA-256. */
  readonly blobs: Blobs
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
export type Ports = Pick<Threadbase, 'blobs' | 'cache' | 'bus'>

/**
 * Opens Threadbase: the database that the options or the environment name, migrated, with the services on it.
 * @throws invalid_input for a bad option; unavailable when the database does not answer; conflict when another
 *   process has the embedded store open
 */
export async function openThreadbase(options: ThreadbaseOptions = {}): Promise<Threadbase> {
  const { log = silentLog } = options
  const threadbase = await openConfigured(toConfig(options), log, undefined, options)
  logChoice(threadbase, log)
  return threadbase
}

/** Says where records are kept, once. */
export function logChoice({ database }: Pick<Threadbase, 'database'>, log: Logger): void {
  log.info({ store: database.description }, 'opened')
}

/** As {@link openThreadbase}, from a configuration that is parsed already. It logs nothing of the choice: commands say what they do. */
export async function openConfigured(
  config: Config,
  log: Logger,
  trace?: StatementTrace,
  { checkpoints, store }: LangGraphOptions = {},
): Promise<Threadbase> {
  const database = await openDatabase(config, log, trace)
  try {
    if (database.engine !== 'none') await migrate(database, config, log)
    const auth = await withSecrets(config, log)
    const keys = createKeySource(config)
    const encrypted = await withEncryption(config, keys, checkpoints)
    const settings = { ...config, auth, log, keys, checkpoints: encrypted, store }
    const ports = await openPorts(config, log)
    try {
      return await createThreadbase(database, settings, ports)
    } catch (error) {
      await closePorts(ports)
      throw error
    }
  } catch (error) {
    await database.close()
    throw error
  }
}

async function migrate(database: Database, { migrateAtStart }: Config, log: Logger): Promise<void> {
  const migrations = await loadMigrations()
  if (migrateAtStart) {
    await upgrade(database, migrations, 'head', ({ revision, name, ms }) =>
      log.info({ revision, name, ms }, 'migrated'),
    )
  } else {
    await requireMigrated(database, migrations)
  }
  await prepareRls(database, { grant: migrateAtStart })
}

/** Bytes, cache and bus of a configuration. Redis being away fails neither: its calls are `unavailable` until it is back. */
export async function openPorts(config: Config, log: Logger): Promise<Ports> {
  const { redisUrl, redisPrefix } = config
  const blobs = await openBlobs(config, log)
  if (redisUrl === undefined) return { ...openLocalPorts(log), blobs }
  const options = { url: redisUrl, prefix: redisPrefix, log }
  const [cache, bus] = await Promise.all([openRedisCache(options), openRedisBus(options)])
  return { blobs, cache, bus }
}

const closePorts = ({ blobs, cache, bus }: Ports) => Promise.all([bus.close(), cache.close(), blobs.close()])

/** Cache and bus of this process alone. */
export function openLocalPorts(log: Logger): Omit<Ports, 'blobs'> {
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

/** What the application says comes before the environment; a key is made only where one is needed. */
async function withEncryption(
  { checkpoints: { encrypted, allowPlaintext } }: Config,
  source: KeySource,
  options: CheckpointOptions = {},
): Promise<CheckpointOptions> {
  if (!encrypted || options.encryption !== undefined) return options
  const keys = (await source.get()).map(({ bytes }) => writeKey(bytes))
  return { ...options, encryption: { keys, allowPlaintext } }
}

type LangGraphOptions = Pick<ThreadbaseOptions, 'checkpoints' | 'store'>
export type ServiceOptions = Pick<Config, 'defaults' | 'auth' | 'uploadLimitBytes' | 'council' | 'usage'> & {
  /** Of JSON files, where there is no database. */
  jsonDir?: string | undefined
  log: Logger
  /** What credentials and variables are encrypted with. */
  keys: KeySource
} & LangGraphOptions

/** The services on a database that is open and migrated; closing them closes what they were given. */
export async function createThreadbase(
  database: Database,
  options: ServiceOptions,
  ports: Ports,
): Promise<Threadbase> {
  const { blobs, cache, bus } = ports
  const { defaults, auth, log, keys, checkpoints: checkpointOptions, store: storeOptions = {} } = options
  const { parallelism: lanes } = database
  const threads = createThreadService(database)
  const innerMessages = createMessageService(database, { lanes })
  const { appendIn: _, ...messages } = innerMessages
  const keeper = createKeeper(database.db, blobs)
  const limits = { maxBytes: options.uploadLimitBytes }
  const checkpoints: CheckpointService = createCheckpointService(database, checkpointOptions)
  const stores = createStoreService(database, storeOptions, log)
  const audit = createAuditService(database.db)
  const limiter = createLimiter(cache, log)
  const identity = await createIdentityService({ database, cache, bus, limiter, audit, log }, auth)
  const { conversations, usage } = await openConversationStores(database, options.jsonDir, {
    ...{ threads, messages: innerMessages, audit, log },
    settings: options.usage,
  })
  const { credentials, variables } = createCredentialService(database, { audit, keys })
  const council = createCouncil({
    conversations,
    usage,
    // users' keys are rows
    credentials: database.engine === 'none' ? undefined : credentials,
    log,
    settings: options.council,
  })
  const close = async () => {
    await council.close()
    // what it still has to write needs the database
    await identity.close()
    await conversations.close()
    await Promise.all([closePorts(ports), database.close()])
  }
  return {
    threads,
    messages,
    transfer: createTransferService(database, { threads, messages, lanes }),
    conversationMove: createConversationMove(database, {
      ...{ threads, messages, usage },
      settings: options.usage,
    }),
    configs: createConfigService(database, defaults),
    conversations,
    council,
    artifacts: createArtifactService(database, threads, keeper, limits),
    files: createFileService(database, keeper, limits),
    upkeep: createBlobUpkeep(database, blobs),
    checkpointer: checkpoints.forAll,
    store: stores.forAll,
    forUser: (userId) => ({ checkpointer: checkpoints.forUser(userId), store: stores.forUser(userId) }),
    identity,
    credentials,
    variables,
    usage,
    audit,
    database,
    blobs,
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
    ENCRYPTION_KEY: options.encryptionKeys?.join(),
  }
  for (const [name, value] of Object.entries(given)) if (value !== undefined) env[name] = value
  const config = parseConfig(env)
  return {
    ...config,
    migrateAtStart: options.migrate ?? config.migrateAtStart,
    defaults: { ...config.defaults, ...options.defaults },
  }
}
