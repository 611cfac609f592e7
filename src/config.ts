import { ThreadbaseError } from './core/errors.ts'
import {
  checkHttpUrl,
  checkOrigins,
  checkPairs,
  checkTrustProxy,
  readOrigins,
  readPairs,
  readTrustProxy,
  type TrustProxy,
} from './core/network.ts'
import { DEFAULT_APP_ROLE, DEFAULT_SCHEMA, type RlsMode } from './db/database.ts'
import { parseRedisUrl } from './redis/url.ts'

type Kind = 'text' | 'integer' | 'number' | 'boolean' | 'secret'

export type Variable = {
  name: string
  kind: Kind
  /** As text; undefined when the variable has none. */
  default?: string
  description: string
  check?: (value: string) => string | undefined
}

const oneOf =
  (...values: string[]) =>
  (value: string) =>
    values.includes(value) ? undefined : `must be one of: ${values.join(', ')}`
const between = (low: number, high: number) => (value: string) =>
  Number(value) >= low && Number(value) <= high ? undefined : `must be between ${low} and ${high}`
const maxLength = (limit: number) => (value: string) =>
  value.length <= limit ? undefined : `must not be longer than ${limit} characters`

function checkDatabaseUrl(value: string): string | undefined {
  // never echo the value: it holds a password
  if (value.startsWith('json:'))
    return 'json: is the JSON-file conversation store, which this version does not have yet'
  if (!/^postgres(ql)?:\/\//.test(value)) return 'must be a postgres:// URL'
  return URL.canParse(value) || value.startsWith('postgres://%2F') ? undefined : 'is not a valid URL'
}

function checkRedisUrl(value: string): string | undefined {
  // never echo the value: it holds a password
  return parseRedisUrl(value) === undefined
    ? 'must be a redis:// or rediss:// URL without a query'
    : undefined
}

/** Every environment variable that Threadbase reads. docs/configuration.md is generated from this. */
export const VARIABLES = {
  DATABASE_URL: {
    name: 'DATABASE_URL',
    kind: 'secret',
    description:
      'PostgreSQL 15 to 18, as `postgres://user:password@host:5432/database`. Without it: the embedded store in `DATA_DIR`.',
    check: checkDatabaseUrl,
  },
  DATABASE_SCHEMA: {
    name: 'DATABASE_SCHEMA',
    kind: 'text',
    default: DEFAULT_SCHEMA,
    description: 'The PostgreSQL schema that holds the tables.',
    check: (value) =>
      /^[a-z_][a-z0-9_]{0,40}$/.test(value)
        ? undefined
        : 'must be a lower-case name of letters, digits and _',
  },
  DATABASE_POOL_SIZE: {
    name: 'DATABASE_POOL_SIZE',
    kind: 'integer',
    default: '5',
    description: 'Connections that stay open.',
    check: between(1, 1_000),
  },
  DATABASE_MAX_OVERFLOW: {
    name: 'DATABASE_MAX_OVERFLOW',
    kind: 'integer',
    default: '10',
    description: 'Connections beyond the pool size under load; closed when idle.',
    check: between(0, 1_000),
  },
  DATABASE_IDLE_TIMEOUT_S: {
    name: 'DATABASE_IDLE_TIMEOUT_S',
    kind: 'integer',
    default: '30',
    description: 'Seconds after which an idle connection beyond the pool size is closed.',
    check: between(1, 86_400),
  },
  DATABASE_START_TIMEOUT_S: {
    name: 'DATABASE_START_TIMEOUT_S',
    kind: 'integer',
    default: '30',
    description:
      'Seconds during which the start retries a database that does not answer, with growing pauses, before it fails.',
    check: between(0, 3_600),
  },
  DATABASE_QUERY_TIMEOUT_S: {
    name: 'DATABASE_QUERY_TIMEOUT_S',
    kind: 'integer',
    default: '60',
    description:
      'Seconds after which a statement that PostgreSQL has not answered is `unavailable` and its connection is given up; migrations may take longer.',
    check: between(1, 86_400),
  },
  DATABASE_PREPARED_STATEMENTS: {
    name: 'DATABASE_PREPARED_STATEMENTS',
    kind: 'boolean',
    default: 'true',
    description: 'Prepare statements by name. `false` behind PgBouncer in transaction mode.',
  },
  DATABASE_MIGRATE: {
    name: 'DATABASE_MIGRATE',
    kind: 'boolean',
    default: 'true',
    description:
      'Whether opening (`serve`, `import`, `export`, the library) applies missing migrations. `false`: it fails when some are missing.',
  },
  DATABASE_RLS: {
    name: 'DATABASE_RLS',
    kind: 'text',
    default: 'off',
    description:
      'Row level security. `enforce`: the statements of a user run as `DATABASE_RLS_ROLE`, which the database itself keeps from the rows of others. `off`: as the role of `DATABASE_URL`.',
    check: oneOf('off', 'enforce'),
  },
  DATABASE_RLS_ROLE: {
    name: 'DATABASE_RLS_ROLE',
    kind: 'text',
    default: DEFAULT_APP_ROLE,
    description: 'The role that `DATABASE_RLS=enforce` uses; made where it is missing.',
    check: (value) =>
      /^(?!pg_|none$|public$)[a-z_][a-z0-9_]{0,62}$/.test(value)
        ? undefined
        : 'must be a lower-case name of letters, digits and _, other than none, public and pg_…',
  },
  DATA_DIR: {
    name: 'DATA_DIR',
    kind: 'text',
    default: '.threadbase',
    description: 'Directory of the embedded store.',
  },
  REDIS_URL: {
    name: 'REDIS_URL',
    kind: 'secret',
    description:
      'Redis 6 or later for what servers share: cache, limits and wake-ups, as `redis://user:password@host:6379/0`, or `rediss://` for TLS. Without it these stay in the process: run one server only.',
    check: checkRedisUrl,
  },
  REDIS_PREFIX: {
    name: 'REDIS_PREFIX',
    kind: 'text',
    default: 'threadbase:',
    description: 'Begins the name of every key and channel in Redis.',
    check: maxLength(100),
  },
  HOST: {
    name: 'HOST',
    kind: 'text',
    default: '127.0.0.1',
    description: 'Address to listen on. In single-user mode only loopback is accepted.',
  },
  PORT: {
    name: 'PORT',
    kind: 'integer',
    default: '4100',
    description: 'Port to listen on; 0 takes a free one.',
    check: between(0, 65_535),
  },
  AUTH_MODE: {
    name: 'AUTH_MODE',
    kind: 'text',
    default: 'single-user',
    description:
      'Who may call. `single-user`: whoever reaches the loopback address; everything belongs to user `local`.',
    check: oneOf('single-user'),
  },
  BODY_LIMIT_MB: {
    name: 'BODY_LIMIT_MB',
    kind: 'number',
    default: '10',
    description: 'Largest request body in MB (1,000,000 bytes); a larger one is `too_large`.',
    check: between(0.001, 1_000),
  },
  CORS_ORIGINS: {
    name: 'CORS_ORIGINS',
    kind: 'text',
    description:
      'Origins whose pages may call with credentials, such as `https://app.example.com,http://localhost:3000`. `*` is refused. None: no page of another origin.',
    check: checkOrigins,
  },
  TRUST_PROXY: {
    name: 'TRUST_PROXY',
    kind: 'text',
    description:
      'Proxies whose `X-Forwarded-For`, `-Proto` and `-Host` are believed: addresses and networks (`10.0.0.0/8,::1`), or how many stand in front of a server that nobody reaches past them. None: the connection alone counts.',
    check: checkTrustProxy,
  },
  HEADER_LIMIT_KB: {
    name: 'HEADER_LIMIT_KB',
    kind: 'integer',
    default: '16',
    description:
      'Largest headers of a request in KB (1,000 bytes), its URL included; larger ones are `too_large`.',
    check: between(4, 1_000),
  },
  HEADERS_TIMEOUT_S: {
    name: 'HEADERS_TIMEOUT_S',
    kind: 'number',
    default: '15',
    description: 'Seconds in which the headers of a request must have come.',
    check: between(0.1, 3_600),
  },
  REQUEST_TIMEOUT_S: {
    name: 'REQUEST_TIMEOUT_S',
    kind: 'number',
    default: '120',
    description: 'Seconds in which a whole request, body included, must have come.',
    check: between(0.1, 3_600),
  },
  HANDLER_TIMEOUT_S: {
    name: 'HANDLER_TIMEOUT_S',
    kind: 'number',
    default: '180',
    description:
      'Seconds after which a request without an answer is `unavailable`, from its headers on; streams have no limit.',
    check: between(0.1, 86_400),
  },
  KEEP_ALIVE_TIMEOUT_S: {
    name: 'KEEP_ALIVE_TIMEOUT_S',
    kind: 'number',
    default: '75',
    description:
      'Seconds that a connection stays open without a request. Longer than that of the proxy in front, which would otherwise meet closed connections.',
    check: between(0.1, 3_600),
  },
  MAX_CONNECTIONS: {
    name: 'MAX_CONNECTIONS',
    kind: 'integer',
    default: '10000',
    description: 'Connections at the same time; further ones are closed unanswered.',
    check: between(1, 1_000_000),
  },
  MAX_STREAMS_PER_USER: {
    name: 'MAX_STREAMS_PER_USER',
    kind: 'integer',
    default: '20',
    description: 'Streams (exports) that a user may have open at the same time; one more is `rate_limited`.',
    check: between(1, 1_000_000),
  },
  LOG_LEVEL: {
    name: 'LOG_LEVEL',
    kind: 'text',
    default: 'info',
    description: '`trace`, `debug`, `info`, `warn`, `error`, `fatal` or `silent`.',
    check: oneOf('trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'),
  },
  OTEL_EXPORTER_OTLP_ENDPOINT: {
    name: 'OTEL_EXPORTER_OTLP_ENDPOINT',
    kind: 'secret',
    description:
      'Collector of OpenTelemetry traces (OTLP over HTTP), such as `http://localhost:4318`. None: no traces, at no cost.',
    check: checkHttpUrl,
  },
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: {
    name: 'OTEL_EXPORTER_OTLP_TRACES_ENDPOINT',
    kind: 'secret',
    description: 'The same as a whole URL, such as `http://localhost:4318/v1/traces`; comes first.',
    check: checkHttpUrl,
  },
  OTEL_EXPORTER_OTLP_HEADERS: {
    name: 'OTEL_EXPORTER_OTLP_HEADERS',
    kind: 'secret',
    description: 'Headers for the collector, as `name=value,name=value`, values URL-encoded.',
    check: checkPairs,
  },
  OTEL_SERVICE_NAME: {
    name: 'OTEL_SERVICE_NAME',
    kind: 'text',
    default: 'threadbase',
    description: 'What traces call this service.',
  },
  SHUTDOWN_TIMEOUT_S: {
    name: 'SHUTDOWN_TIMEOUT_S',
    kind: 'integer',
    default: '10',
    description: 'Seconds that requests in flight have to finish after SIGTERM or SIGINT.',
    check: between(0, 3_600),
  },
  DEFAULT_MODEL: {
    name: 'DEFAULT_MODEL',
    kind: 'text',
    description: 'Model of threads that set none.',
    check: maxLength(255),
  },
  DEFAULT_TEMPERATURE: {
    name: 'DEFAULT_TEMPERATURE',
    kind: 'number',
    description: 'Temperature of threads that set none.',
    check: between(0, 2),
  },
  DEFAULT_SYSTEM_PROMPT: {
    name: 'DEFAULT_SYSTEM_PROMPT',
    kind: 'text',
    description: 'System prompt of threads that set none.',
    check: maxLength(100_000),
  },
  CONTEXT_WINDOW: {
    name: 'CONTEXT_WINDOW',
    kind: 'integer',
    description: 'Context window, in tokens, of threads that set none.',
    check: between(1, 2_147_483_647),
  },
  NODE_ENV: {
    name: 'NODE_ENV',
    kind: 'text',
    description: '`production` refuses to start without `DATABASE_URL`.',
  },
} as const satisfies Record<string, Variable>

export type Config = {
  databaseUrl: string | undefined
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
  redisUrl: string | undefined
  redisPrefix: string
  host: string
  port: number
  authMode: 'single-user'
  bodyLimitBytes: number
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

type Environment = Record<string, string | undefined>

/**
 * The configuration that an environment asks for. An empty variable counts as not set.
 * @throws invalid_input that names the variable and what it should be; a secret's value is never repeated
 */
export function parseConfig(env: Environment): Config {
  const text = (variable: Variable): string | undefined => readText(variable, env)
  const required = (variable: Variable & { default: string }) => text(variable) ?? variable.default
  const number = (variable: Variable): number | null => {
    const value = text(variable)
    return value === undefined ? null : Number(value)
  }
  const requiredNumber = (variable: Variable & { default: string }) => Number(required(variable))
  const milliseconds = (variable: Variable & { default: string }) =>
    Math.round(requiredNumber(variable) * 1_000)
  const flag = (variable: Variable & { default: string }) => isTrue(required(variable))
  const v = VARIABLES
  const config: Config = {
    databaseUrl: text(v.DATABASE_URL),
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
    redisUrl: text(v.REDIS_URL),
    redisPrefix: required(v.REDIS_PREFIX),
    host: required(v.HOST),
    port: requiredNumber(v.PORT),
    authMode: required(v.AUTH_MODE) as 'single-user',
    bodyLimitBytes: Math.round(requiredNumber(v.BODY_LIMIT_MB) * 1_000_000),
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
    logLevel: required(v.LOG_LEVEL),
    shutdownTimeoutS: requiredNumber(v.SHUTDOWN_TIMEOUT_S),
    defaults: {
      model: text(v.DEFAULT_MODEL) ?? null,
      temperature: number(v.DEFAULT_TEMPERATURE),
      systemPrompt: text(v.DEFAULT_SYSTEM_PROMPT) ?? null,
      contextWindow: number(v.CONTEXT_WINDOW),
    },
  }
  if (text(v.NODE_ENV) === 'production' && config.databaseUrl === undefined) {
    throw new ThreadbaseError(
      'invalid_input',
      'NODE_ENV=production needs DATABASE_URL: the embedded store is for development',
      {
        variable: 'DATABASE_URL',
      },
    )
  }
  return config
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
