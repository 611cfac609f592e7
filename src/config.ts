import type { EmbeddingEngine, EmbeddingSettings } from './config/search.ts'
import { isJsonUrl, jsonDirOf } from './config/storage.ts'
import { readTiers } from './config/usage.ts'
import { splitList, type Variable } from './config/variable.ts'
import { VARIABLES } from './config/variables.ts'
import type { CouncilSettings } from './conversations/service.ts'
import { ThreadbaseError } from './core/errors.ts'
import { readOrigins, readPairs, readTrustProxy, type TrustProxy } from './core/network.ts'
import type { RlsMode } from './db/database.ts'
import type { AuthMode, AuthSettings } from './identity/service.ts'
import type { VectorSettings } from './search/vectors/service.ts'
import type { UsageSettings } from './usage/schema.ts'

export type S3Settings = {
  bucket: string
  region: string
  /** A URL; undefined: AWS. */
  endpoint: string | undefined
  forcePathStyle: boolean
  /** Empty, or ends in `/`. */
  prefix: string
  /** Undefined: those that the SDK finds. */
  credentials: { accessKeyId: string; secretAccessKey: string; sessionToken: string | undefined } | undefined
}

export type Config = {
  /** Of PostgreSQL; undefined: the embedded store, or JSON files. */
  databaseUrl: string | undefined
  /** The directory of JSON files that stands for a database. */
  jsonDir: string | undefined
  databaseSchema: string
  poolSize: number
  maxOverflow: number
  idleTimeoutS: number
  startTimeoutS: number
  queryTimeoutS: number
  preparedStatements: boolean
  migrateAtStart: boolean
  rls: RlsMode
  appRole: string
  dataDir: string
  blobs: {
    /** Undefined: bytes are files in the data directory. */
    s3: S3Settings | undefined
  }
  redisUrl: string | undefined
  redisPrefix: string
  /** The first encrypts, all decrypt. */
  encryptionKeys: string[] | undefined
  checkpoints: {
    /** Whether channel values are encrypted. */
    encrypted: boolean
    allowPlaintext: boolean
  }
  host: string
  port: number
  auth: AuthSettings
  /** Requests a minute of one user to one endpoint; 0: no limit. */
  rateLimitPerMinute: number
  usage: UsageSettings
  metricsToken: string | undefined
  bodyLimitBytes: number
  /** Of one artifact or file. */
  uploadLimitBytes: number
  corsOrigins: string[]
  trustProxy: TrustProxy
  limits: {
    headerBytes: number
    headersTimeoutMs: number
    requestTimeoutMs: number
    handlerTimeoutMs: number
    keepAliveTimeoutMs: number
    connections: number
    streamsPerUser: number
  }
  traces: {
    /** Where spans go, as a whole URL; undefined: there are none. */
    url: string | undefined
    headers: Record<string, string>
    serviceName: string
  }
  council: CouncilSettings
  embeddings: EmbeddingSettings
  /** By words. */
  /** Undefined: the language of the database stays. */
  search: { language: string | undefined }
  /** How embeddings are found. */
  vectors: VectorSettings
  logLevel: string
  shutdownTimeoutS: number
  defaults: {
    model: string | null
    temperature: number | null
    systemPrompt: string | null
    contextWindow: number | null
  }
}

function tracesUrl(traces: string | undefined, base: string | undefined): string | undefined {
  return traces ?? (base === undefined ? undefined : `${base.replace(/\/+$/, '')}/v1/traces`)
}

/**
 * The environment of somebody who names a data directory: what is kept is kept there, whatever the variables say. Rows
 * there and bytes in the bucket of another installation would make garbage of that one's bytes.
 */
export function withDataDir(env: Environment, dataDir: string): Environment {
  const elsewhere = {
    DATABASE_URL: undefined,
    S3_BUCKET: undefined,
    S3_ENDPOINT: undefined,
    S3_PREFIX: undefined,
  }
  return { ...env, ...elsewhere, DATA_DIR: dataDir }
}

const DEFAULT_RATE_LIMIT = 1_000

type Environment = Record<string, string | undefined>

/**
 * The configuration that an environment asks for. An empty variable counts as not set.
 * @throws invalid_input that names the variable and what it should be; a secret's value is never repeated
 */
export function parseConfig(env: Environment): Config {
  const read = readerOf(env)
  const { text, required, number, requiredNumber, milliseconds, flag, list } = read
  const v = VARIABLES
  const url = text(v.DATABASE_URL)
  const isJson = url !== undefined && isJsonUrl(url)
  const config: Config = {
    databaseUrl: isJson ? undefined : url,
    jsonDir: isJson ? jsonDirOf(url) : undefined,
    databaseSchema: required(v.DATABASE_SCHEMA),
    poolSize: requiredNumber(v.DATABASE_POOL_SIZE),
    maxOverflow: requiredNumber(v.DATABASE_MAX_OVERFLOW),
    idleTimeoutS: requiredNumber(v.DATABASE_IDLE_TIMEOUT_S),
    startTimeoutS: requiredNumber(v.DATABASE_START_TIMEOUT_S),
    queryTimeoutS: requiredNumber(v.DATABASE_QUERY_TIMEOUT_S),
    preparedStatements: flag(v.DATABASE_PREPARED_STATEMENTS),
    migrateAtStart: flag(v.DATABASE_MIGRATE),
    rls: required(v.DATABASE_RLS) as RlsMode,
    appRole: required(v.DATABASE_RLS_ROLE),
    dataDir: required(v.DATA_DIR),
    blobs: { s3: readS3(read) },
    redisUrl: text(v.REDIS_URL),
    redisPrefix: required(v.REDIS_PREFIX),
    encryptionKeys: list(v.ENCRYPTION_KEY),
    checkpoints: {
      encrypted: flag(v.CHECKPOINT_ENCRYPTION),
      allowPlaintext: flag(v.CHECKPOINT_ALLOW_PLAINTEXT),
    },
    host: required(v.HOST),
    port: requiredNumber(v.PORT),
    auth: readAuth(read),
    rateLimitPerMinute:
      number(v.RATE_LIMIT_PER_MINUTE) ?? (required(v.AUTH_MODE) === 'single-user' ? 0 : DEFAULT_RATE_LIMIT),
    usage: readUsage(read),
    metricsToken: text(v.METRICS_TOKEN),
    bodyLimitBytes: Math.round(requiredNumber(v.BODY_LIMIT_MB) * 1_000_000),
    uploadLimitBytes: Math.round(requiredNumber(v.UPLOAD_LIMIT_MB) * 1_000_000),
    corsOrigins: readOrigins(text(v.CORS_ORIGINS) ?? ''),
    trustProxy: readTrustProxy(text(v.TRUST_PROXY)),
    limits: {
      headerBytes: requiredNumber(v.HEADER_LIMIT_KB) * 1_000,
      headersTimeoutMs: milliseconds(v.HEADERS_TIMEOUT_S),
      requestTimeoutMs: milliseconds(v.REQUEST_TIMEOUT_S),
      handlerTimeoutMs: milliseconds(v.HANDLER_TIMEOUT_S),
      keepAliveTimeoutMs: milliseconds(v.KEEP_ALIVE_TIMEOUT_S),
      connections: requiredNumber(v.MAX_CONNECTIONS),
      streamsPerUser: requiredNumber(v.MAX_STREAMS_PER_USER),
    },
    traces: {
      url: tracesUrl(text(v.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT), text(v.OTEL_EXPORTER_OTLP_ENDPOINT)),
      headers: readPairs(text(v.OTEL_EXPORTER_OTLP_HEADERS)),
      serviceName: required(v.OTEL_SERVICE_NAME),
    },
    council: readCouncil(read),
    embeddings: readEmbeddings(read),
    search: { language: text(v.SEARCH_LANGUAGE) },
    vectors: {
      index: required(v.VECTOR_INDEX) as VectorSettings['index'],
      lists: number(v.VECTOR_LISTS) ?? undefined,
      probes: number(v.VECTOR_PROBES) ?? undefined,
    },
    logLevel: required(v.LOG_LEVEL),
    shutdownTimeoutS: requiredNumber(v.SHUTDOWN_TIMEOUT_S),
    defaults: {
      model: text(v.DEFAULT_MODEL) ?? null,
      temperature: number(v.DEFAULT_TEMPERATURE),
      systemPrompt: text(v.DEFAULT_SYSTEM_PROMPT) ?? null,
      contextWindow: number(v.CONTEXT_WINDOW),
    },
  }
  if (text(v.NODE_ENV) === 'production') requireForProduction(config)
  requireForEncryption(config)
  requireForJson(config)
  return config
}

type Required = Variable & { default: string }
type Reader = ReturnType<typeof readerOf>

/** Each function gives a variable's value, checked; undefined or null where there is none. */
function readerOf(env: Environment) {
  const text = (variable: Variable): string | undefined => readText(variable, env)
  const required = (variable: Required) => text(variable) ?? variable.default
  const requiredNumber = (variable: Required) => Number(required(variable))
  return {
    text,
    required,
    requiredNumber,
    number: (variable: Variable): number | null => {
      const value = text(variable)
      return value === undefined ? null : Number(value)
    },
    milliseconds: (variable: Required) => Math.round(requiredNumber(variable) * 1_000),
    flag: (variable: Required) => isTrue(required(variable)),
    list: (variable: Variable) => {
      const value = text(variable)
      return value === undefined ? undefined : splitList(value)
    },
  }
}

function readAuth({ text, required, requiredNumber, flag, list }: Reader): AuthSettings {
  const v = VARIABLES
  const mode = required(v.AUTH_MODE) as AuthMode
  const neededFor = (variable: Variable, wanted: AuthMode): string | undefined => {
    const value = text(variable)
    if (value === undefined && mode === wanted) throw missing(variable.name, `AUTH_MODE=${mode}`)
    return value
  }
  const jwksUrl = neededFor(v.JWT_JWKS_URL, 'jwt')
  const issuer = neededFor(v.JWT_ISSUER, 'jwt')
  return {
    mode,
    secrets: list(v.AUTH_SECRET),
    accessTtlS: requiredNumber(v.ACCESS_TOKEN_TTL_S),
    refreshTtlS: requiredNumber(v.REFRESH_TOKEN_TTL_S),
    bcryptCost: requiredNumber(v.BCRYPT_COST),
    registration: flag(v.REGISTRATION),
    loginLimits: {
      perUser: requiredNumber(v.LOGIN_LIMIT_PER_USER),
      perAddress: requiredNumber(v.LOGIN_LIMIT_PER_ADDRESS),
    },
    external:
      mode !== 'jwt' || jwksUrl === undefined || issuer === undefined
        ? undefined
        : {
            jwksUrl,
            issuer,
            audience: list(v.JWT_AUDIENCE),
            algorithms: splitList(required(v.JWT_ALGORITHMS)),
            clockSkewS: requiredNumber(v.JWT_CLOCK_SKEW_S),
          },
    proxySecret: neededFor(v.PROXY_SECRET, 'proxy'),
  }
}

function readCouncil({ text, required, requiredNumber, milliseconds, list }: Reader): CouncilSettings {
  const v = VARIABLES
  return {
    keys: { openrouter: text(v.OPENROUTER_API_KEY), openai: text(v.OPENAI_API_KEY) },
    urls: { openrouter: required(v.OPENROUTER_BASE_URL), openai: required(v.OPENAI_BASE_URL) },
    models: list(v.COUNCIL_MODELS),
    chairman: text(v.CHAIRMAN_MODEL),
    titleModel: text(v.TITLE_MODEL),
    timeoutMs: milliseconds(v.COUNCIL_MODEL_TIMEOUT_S),
    retries: requiredNumber(v.COUNCIL_MODEL_RETRIES),
  }
}

function readEmbeddings({ text, required, milliseconds }: Reader): EmbeddingSettings {
  const v = VARIABLES
  const model = required(v.EMBEDDING_MODEL)
  const engine = required(v.EMBEDDING_ENGINE) as EmbeddingEngine
  const shared = required(v.OPENAI_BASE_URL)
  const url = text(v.EMBEDDING_URL) ?? shared
  const key = text(v.EMBEDDING_API_KEY) ?? (url === shared ? text(v.OPENAI_API_KEY) : undefined)
  const timeoutMs = milliseconds(v.EMBEDDING_TIMEOUT_S)
  if (model === 'none') return { kind: 'none' }
  const isDefault = text(v.EMBEDDING_MODEL) === undefined
  return model === 'local'
    ? { kind: 'local', engine, isDefault }
    : { kind: 'endpoint', model, url, key, timeoutMs }
}

function readUsage({ text, required }: Reader): UsageSettings {
  const v = VARIABLES
  const tiers = readTiers(required(v.USAGE_TIERS))
  // a text is what was wrong, which has been thrown
  if (typeof tiers === 'string') throw new ThreadbaseError('invalid_input', `USAGE_TIERS ${tiers}`)
  const defaultTier = required(v.USAGE_DEFAULT_TIER)
  if (!tiers.has(defaultTier)) {
    const variable = v.USAGE_DEFAULT_TIER.name
    const names = [...tiers.keys()].join(', ')
    throw new ThreadbaseError('invalid_input', `${variable} must be one of USAGE_TIERS: ${names}`, {
      variable,
    })
  }
  // nobody has to be kept from asking on their own machine
  const isOwn = required(v.AUTH_MODE) === 'single-user' && text(v.USAGE_DEFAULT_TIER) === undefined
  const [unlimited] = [...tiers].find(([, { daily, monthly }]) => daily === null && monthly === null) ?? []
  return { tiers, defaultTier, localTier: isOwn ? (unlimited ?? defaultTier) : defaultTier }
}

function readS3({ text, required, flag }: Reader): S3Settings | undefined {
  const v = VARIABLES
  const bucket = text(v.S3_BUCKET)
  const [endpoint, prefix] = [text(v.S3_ENDPOINT), text(v.S3_PREFIX)]
  if (bucket === undefined) {
    // the bytes would go to the disk of one server, and nobody would notice
    for (const { name } of [v.S3_ENDPOINT, v.S3_PREFIX].filter((variable) => text(variable) !== undefined))
      throw missing('S3_BUCKET', name)
    return undefined
  }
  return {
    bucket,
    region: required(v.AWS_REGION),
    endpoint,
    forcePathStyle: flag({ ...v.S3_FORCE_PATH_STYLE, default: String(endpoint !== undefined) }),
    prefix: prefix === undefined || prefix.endsWith('/') ? (prefix ?? '') : `${prefix}/`,
    credentials: readS3Credentials(text),
  }
}

function readS3Credentials(text: Reader['text']): S3Settings['credentials'] {
  const { AWS_ACCESS_KEY_ID: id, AWS_SECRET_ACCESS_KEY: secret, AWS_SESSION_TOKEN: session } = VARIABLES
  const [accessKeyId, secretAccessKey, sessionToken] = [text(id), text(secret), text(session)]
  if (accessKeyId !== undefined && secretAccessKey !== undefined)
    return { accessKeyId, secretAccessKey, sessionToken }
  if (accessKeyId !== undefined) throw missing(secret.name, id.name)
  if (secretAccessKey !== undefined) throw missing(id.name, secret.name)
  if (sessionToken !== undefined) throw missing(id.name, session.name)
  return undefined
}

/** A key in the directory of one server would be of no use to the others, and is easily lost beside a database that stays. */
function requireForEncryption({ databaseUrl, encryptionKeys, checkpoints }: Config): void {
  if (checkpoints.encrypted && databaseUrl !== undefined && encryptionKeys === undefined)
    throw missing('ENCRYPTION_KEY', 'CHECKPOINT_ENCRYPTION', ' where DATABASE_URL is set')
}

function requireForProduction({ databaseUrl, jsonDir, auth, encryptionKeys }: Config): void {
  const production = 'NODE_ENV=production'
  if (jsonDir !== undefined)
    throw new ThreadbaseError(
      'invalid_input',
      `${production} needs a DATABASE_URL of PostgreSQL: JSON files are for development`,
      { variable: 'DATABASE_URL' },
    )
  if (databaseUrl === undefined)
    throw missing('DATABASE_URL', production, ': the embedded store is for development')
  if (auth.mode === 'accounts' && auth.secrets === undefined) throw missing('AUTH_SECRET', production)
  if (encryptionKeys === undefined) throw missing('ENCRYPTION_KEY', production)
}

/** Accounts are rows: there is nobody to sign in. */
function requireForJson({ jsonDir, auth }: Config): void {
  if (jsonDir !== undefined && auth.mode === 'accounts')
    throw new ThreadbaseError(
      'invalid_input',
      'AUTH_MODE=accounts needs a database: with a DATABASE_URL of json: it must be single-user, jwt or proxy',
      { variable: 'AUTH_MODE' },
    )
}

function missing(variable: string, by: string, why = ''): ThreadbaseError {
  return new ThreadbaseError('invalid_input', `${by} needs ${variable}${why}`, { variable })
}

function readText(variable: Variable, env: Environment): string | undefined {
  const value = env[variable.name]?.trim()
  if (value === undefined || value === '') return undefined
  const problem = problemOf(variable, value)
  if (problem === undefined) return value
  throw new ThreadbaseError('invalid_input', `${variable.name} ${problem}`, { variable: variable.name })
}

const FLAGS = ['true', 'false', '1', '0', 'yes', 'no', 'on', 'off']
const isTrue = (value: string) => ['true', '1', 'yes', 'on'].includes(value.toLowerCase())

function problemOf({ kind, check }: Variable, value: string): string | undefined {
  if (kind === 'integer' && !/^-?\d+$/.test(value)) return 'must be a whole number'
  if (kind === 'number' && !/^-?\d+(\.\d+)?$/.test(value)) return 'must be a number'
  if (kind === 'boolean' && !FLAGS.includes(value.toLowerCase())) return 'must be true or false'
  return check?.(value)
}
