import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sql } from 'kysely'
import { inject } from 'vitest'
import type { Blobs } from '../src/blobs/blobs.ts'
import { openFiles } from '../src/blobs/files.ts'
import { createUrlSigner } from '../src/blobs/signed-urls.ts'
import type { CheckpointOptions } from '../src/checkpoints/service.ts'
import type { StoreServiceOptions } from '../src/checkpoints/store/service.ts'
import { parseConfig } from '../src/config.ts'
import type { ConfigDefaults } from '../src/configs/schema.ts'
import type { CouncilSettings } from '../src/conversations/service.ts'
import type { KeySource } from '../src/core/key-ring.ts'
import { type Logger, silentLog } from '../src/core/log.ts'
import { fixedKeys } from '../src/credentials/service.ts'
import type { CommonOptions, Database, RlsMode } from '../src/db/database.ts'
import { upgrade } from '../src/db/migrate.ts'
import { loadMigrations, type Migration } from '../src/db/migrations.ts'
import { openPglite } from '../src/db/pglite.ts'
import { openPostgres, type PostgresOptions } from '../src/db/postgres.ts'
import { prepareRls } from '../src/db/rls.ts'
import type { Embedder } from '../src/embeddings/embedder.ts'
import type { AuthSettings } from '../src/identity/service.ts'
import { openLocalPorts } from '../src/open-threadbase.ts'
import type { EmbeddingOptions } from '../src/search/embed/service.ts'
import { prepareVectors } from '../src/search/vectors/service.ts'
import { createThreadbase, type Ports, type Threadbase } from '../src/threadbase.ts'
import type { UsageSettings } from '../src/usage/schema.ts'

export type LogRecord = { level: keyof Logger; facts: Record<string, unknown>; message: string }

export type TestDatabase = {
  database: Database
  tb: Threadbase
  /** Everything that was logged so far. */
  logged: LogRecord[]
  /** Directory of the embedded store; undefined on PostgreSQL. */
  dataDir: string | undefined
  /** Closes the database and removes what it held. */
  close(): Promise<void>
}

export type OpenOptions = Partial<Omit<CommonOptions, 'log'>> &
  Partial<Omit<PostgresOptions, 'log'>> & {
    /** What to apply. Default: all that there are; an empty list leaves the database empty. */
    migrations?: Migration[]
    defaults?: Partial<ConfigDefaults>
    /** Over {@link TEST_AUTH}. */
    auth?: Partial<AuthSettings>
    /** Default: of this process alone. */
    ports?: Partial<Ports>
    uploadLimitBytes?: number
    /** Over one without keys. */
    council?: Partial<CouncilSettings>
    checkpoints?: CheckpointOptions
    store?: StoreServiceOptions
    /** Default: {@link TEST_KEY}. */
    keys?: KeySource
    /** Default: none, and no columns for embeddings. */
    embedder?: Embedder
    embedding?: EmbeddingOptions
    /** Whether texts are embedded in the background. Default: where there is an embedder. */
    background?: boolean
  }

export type Engine = {
  name: 'pglite' | 'postgres'
  available: boolean
  open(options?: OpenOptions): Promise<TestDatabase>
}

export const NO_DEFAULTS: ConfigDefaults = {
  model: null,
  temperature: null,
  systemPrompt: null,
  contextWindow: null,
}

/** As in single-user mode, with passwords that are hashed in no time. */
export const TEST_AUTH: AuthSettings = {
  mode: 'single-user',
  secrets: ['only-for-tests-only-for-tests-only-for-tests'],
  accessTtlS: 3_600,
  refreshTtlS: 604_800,
  bcryptCost: 4,
  registration: false,
  loginLimits: { perUser: 10, perAddress: 1_000 },
  external: undefined,
  proxySecret: undefined,
}

/** The tiers that there are when nothing is configured; `local` has no limits, as in single-user mode. */
export const TEST_USAGE: UsageSettings = {
  tiers: new Map([
    ['free', { daily: 10, monthly: 100 }],
    ['pro', { daily: 100, monthly: 3_000 }],
    ['enterprise', { daily: null, monthly: null }],
  ]),
  defaultTier: 'free',
  localTier: 'enterprise',
}

const NOWHERE = 'http://127.0.0.1:9/v1'
/** No key, and nobody where the keys of users are sent: tests keep to this machine. */
const NO_COUNCIL: CouncilSettings = {
  ...parseConfig({}).council,
  urls: { openrouter: NOWHERE, openai: NOWHERE },
  retries: 0,
}

/** What secrets are encrypted with. */
export const TEST_KEY = 'b25seS1mb3ItdGVzdHMtb25seS1mb3ItdGVzdHMtMzI='

/** The prepared archive that embedded stores start from, for tests and child processes that open their own. */
export const templateFile = inject('templateFile')
/** The database of this run on PostgreSQL; null when there is none. */
export const postgresUrl = inject('postgresUrl')
/** The Redis of this run; null when there is none. Take a prefix of your own: {@link newRedisPrefix}. */
export const redisUrl = inject('redisUrl')
/** The S3 server of this run; null when there is none. Take a bucket of your own: `makeBucket` of s3.ts. */
export const s3Endpoint = inject('s3Endpoint')

/**
 * Both engines. Open one store per test file and share it: an embedded one takes about a second.
 * `for (const engine of engines) describe.skipIf(!engine.available)(engine.name, () => …)`
 */
export const engines: Engine[] = [
  { name: 'pglite', available: true, open: openTestPglite },
  { name: 'postgres', available: postgresUrl !== null, open: openTestPostgres },
]

/** THREADBASE_TEST_RLS=enforce: every store of the run opens so, unless a test says otherwise. */
export const testRls: RlsMode = process.env.THREADBASE_TEST_RLS === 'enforce' ? 'enforce' : 'off'

/** A log that keeps what it is given. */
export function recordingLog(): { log: Logger; logged: LogRecord[] } {
  const logged: LogRecord[] = []
  const at = (level: keyof Logger) => (facts: object, message: string) =>
    void logged.push({ level, facts: facts as Record<string, unknown>, message })
  return { log: { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }, logged }
}

export function makeTempDir(): Promise<string> {
  return mkdtemp(join(tmpdir(), 'threadbase-test-'))
}

/** A name that no other test file uses. */
export function newSchemaName(): string {
  return `tb_${randomBytes(6).toString('hex')}`
}

/** A beginning of keys and channels that no other test file uses. */
export function newRedisPrefix(): string {
  return `threadbase_test_${randomBytes(6).toString('hex')}:`
}

async function openTestPglite(options: OpenOptions = {}): Promise<TestDatabase> {
  const dataDir = await makeTempDir()
  const { log, logged } = recordingLog()
  const database = await openPglite({ rls: testRls, ...options, log, dataDir, templateFile })
  const tb = await migrated(database, options, log)
  const close = async () => {
    await tb.close()
    await rm(dataDir, { recursive: true, force: true })
  }
  return { database, tb, logged, dataDir, close }
}

async function openTestPostgres(options: OpenOptions = {}): Promise<TestDatabase> {
  if (postgresUrl === null) throw new Error('there is no PostgreSQL for tests')
  const schema = options.schema ?? newSchemaName()
  const { log, logged } = recordingLog()
  const database = await openPostgres({ url: postgresUrl, rls: testRls, ...options, schema, log })
  const tb = await migrated(database, options, log)
  const close = async () => {
    await sql`/* migrate.drop */ drop schema if exists ${sql.id(schema)} cascade`.execute(database.db)
    await tb.close()
  }
  return { database, tb, logged, dataDir: undefined, close }
}

async function migrated(database: Database, options: OpenOptions, log: Logger): Promise<Threadbase> {
  const wanted = options.migrations ?? (await loadMigrations())
  if (wanted.length > 0) {
    await upgrade(database, wanted)
    await prepareRls(database, { grant: true })
    if (options.embedder !== undefined)
      await prepareVectors(database, { index: 'hnsw', change: true }, silentLog)
  }
  return openServices(database, options, log)
}

/** Bytes in a directory that is removed when they are closed; made when it is first needed. */
export function openTestFiles(): Blobs {
  const dir = join(tmpdir(), `threadbase-test-${randomBytes(8).toString('hex')}`)
  const signer = createUrlSigner(randomBytes(32))
  const blobs = openFiles({ dir, signer: async () => signer })
  return { ...blobs, close: () => rm(dir, { recursive: true, force: true }) }
}

type ServiceOptions = Pick<
  OpenOptions,
  | 'defaults'
  | 'auth'
  | 'ports'
  | 'checkpoints'
  | 'store'
  | 'uploadLimitBytes'
  | 'keys'
  | 'council'
  | 'embedder'
  | 'embedding'
  | 'background'
>

/** The services on a database that a test opened itself. */
export function openServices(
  database: Database,
  {
    defaults,
    auth,
    ports,
    checkpoints,
    store,
    keys,
    council,
    embedder,
    embedding,
    background = embedder !== undefined,
    uploadLimitBytes = 5_000_000_000,
  }: ServiceOptions = {},
  log: Logger = silentLog,
): Promise<Threadbase> {
  const settings = {
    uploadLimitBytes,
    defaults: { ...NO_DEFAULTS, ...defaults },
    auth: { ...TEST_AUTH, ...auth },
    council: { ...NO_COUNCIL, ...council },
    usage: TEST_USAGE,
    checkpoints,
    store,
    embedder,
    embedding: { pollS: 0.2, settleS: 0.01, ...embedding },
    background,
    keys: keys ?? fixedKeys([TEST_KEY]),
    log,
  }
  return createThreadbase(database, settings, { blobs: openTestFiles(), ...openLocalPorts(log), ...ports })
}
