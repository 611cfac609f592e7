import { join } from 'node:path'
import { createLocalBus } from './bus/local.ts'
import { openRedisBus } from './bus/redis.ts'
import { createMemoryCache } from './cache/memory.ts'
import { openRedisCache } from './cache/redis.ts'
import type { CheckpointOptions } from './checkpoints/service.ts'
import type { StoreServiceOptions } from './checkpoints/store/service.ts'
import { type Config, parseConfig, withDataDir } from './config.ts'
import type { ConfigDefaults } from './configs/schema.ts'
import { type KeySource, writeKey } from './core/key-ring.ts'
import { type Logger, silentLog } from './core/log.ts'
import { createKeySource } from './credentials/service.ts'
import type { Database, RlsMode } from './db/database.ts'
import { requireMigrated, upgrade } from './db/migrate.ts'
import { loadMigrations } from './db/migrations.ts'
import { prepareRls } from './db/rls.ts'
import type { StatementTrace } from './db/statements.ts'
import type { Embedder } from './embeddings/embedder.ts'
import { type AuthSettings, readOrMakeSecret } from './identity/service.ts'
import { openBlobs } from './open-blobs.ts'
import { openDatabase } from './open-database.ts'
import { openEmbeddings } from './open-embeddings.ts'
import { findEmbeddingModel } from './search/embed/service.ts'
import { prepareSearch } from './search/service.ts'
import { prepareVectors } from './search/vectors/service.ts'
import { closePorts, createThreadbase, type Ports, type Threadbase } from './threadbase.ts'

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
  /** What makes texts into vectors for search by meaning; it stays open. False: nothing does. Default: what `env` says, the local model without it. */
  embeddings?: Embedder | false
  /** A pino logger or its like. Default: nothing is logged. */
  log?: Logger
  /** Environment variables to read what the options leave out. Default: none. */
  env?: Record<string, string | undefined>
}

/**
 * Opens Threadbase: the database that the options or the environment name, migrated, with the services on it.
 * @throws invalid_input for a bad option; unavailable when the database does not answer; conflict when another
 *   process has the embedded store open
 */
export async function openThreadbase(options: ThreadbaseOptions = {}): Promise<Threadbase> {
  const { log = silentLog } = options
  const threadbase = await openConfigured(toConfig(options), log, undefined, { ...options, background: true })
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
  { checkpoints, store, embeddings, background = false }: OpenOptions = {},
): Promise<Threadbase> {
  const database = await openDatabase(config, log, trace)
  let embedder = embeddings === false ? undefined : (keepOpen(embeddings) ?? openEmbeddings(config, log))
  try {
    if (database.engine !== 'none') await migrate(database, config, log)
    if (embeddings === undefined && (await isDisplaced(database, config, embedder, log))) {
      await embedder?.close()
      embedder = undefined
    }
    if (background && embedder !== undefined)
      await prepareVectors(database, { index: config.vectors.index, change: config.migrateAtStart }, log)
    const auth = await withSecrets(config, log)
    const keys = createKeySource(config)
    const encrypted = await withEncryption(config, keys, checkpoints)
    const settings = { ...config, auth, log, keys, checkpoints: encrypted, store, embedder, background }
    const ports = await openPorts(config, log)
    try {
      return await createThreadbase(database, settings, ports)
    } catch (error) {
      await closePorts(ports)
      throw error
    }
  } catch (error) {
    await embedder?.close()
    await database.close()
    throw error
  }
}

/** A model that nobody has chosen does not take the place of one that somebody has: all would be embedded again. */
async function isDisplaced(
  database: Database,
  { embeddings }: Config,
  embedder: Embedder | undefined,
  log: Logger,
): Promise<boolean> {
  if (database.engine === 'none' || embeddings.kind !== 'local' || !embeddings.isDefault) return false
  const model = await findEmbeddingModel(database)
  if (model === undefined || model === embedder?.model) return false
  log.warn(
    { model },
    'the embeddings of the database are of another model than the default: they are off here, until EMBEDDING_MODEL names that model, or `local` to make all of them again',
  )
  return true
}

/** What the application brings is the application's to close. */
function keepOpen(embedder: Embedder | undefined): Embedder | undefined {
  if (embedder === undefined) return undefined
  return {
    model: embedder.model,
    get description() {
      return embedder.description
    },
    batchSize: embedder.batchSize,
    ...(embedder.local !== undefined && { local: embedder.local }),
    embed: (texts, options) => embedder.embed(texts, options),
    close: async () => {},
  }
}

async function migrate(database: Database, { migrateAtStart, search }: Config, log: Logger): Promise<void> {
  const migrations = await loadMigrations()
  if (migrateAtStart) {
    await upgrade(database, migrations, 'head', ({ revision, name, ms }) =>
      log.info({ revision, name, ms }, 'migrated'),
    )
  } else {
    await requireMigrated(database, migrations)
  }
  await prepareSearch(database, { ...search, change: migrateAtStart }, log)
  await prepareRls(database, { grant: migrateAtStart })
}

type OpenOptions = Pick<ThreadbaseOptions, 'checkpoints' | 'store' | 'embeddings'> & {
  /** Whether it works in the background, too: not for a command, which does one thing. Default false. */
  background?: boolean
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
