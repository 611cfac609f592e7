import { KEY_FORM, readKey } from './core/key-ring.ts'
import { checkHttpUrl, checkOrigins, checkPairs, checkTrustProxy } from './core/network.ts'
import { DEFAULT_APP_ROLE, DEFAULT_SCHEMA } from './db/database.ts'
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

// those with a public key: with a shared secret the provider's public key could be used as one
const JWT_ALGORITHMS: ReadonlySet<string> = new Set([
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
])

/** The parts of a comma-separated value. */
export function splitList(value: string): string[] {
  return value
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
}

/** At least one part, each of which fits. */
const listOf = (fits: (part: string) => boolean, problem: string) => (value: string) => {
  const parts = splitList(value)
  return parts.length > 0 && parts.every(fits) ? undefined : problem
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
  ENCRYPTION_KEY: {
    name: 'ENCRYPTION_KEY',
    kind: 'secret',
    description:
      'Encrypts provider keys and variables of users, and what `CHECKPOINT_ENCRYPTION` says: 32 random bytes in base64 or base64url (a Fernet key is one), the same on all servers. A list (comma-separated) to change it: the first encrypts, all decrypt; `threadbase keys` makes and changes them. Who loses it loses what it encrypted. Default, on the embedded store: made when it is first needed, in `DATA_DIR/encryption.key`. Required with `NODE_ENV=production`.',
    check: listOf(
      (part) => readKey(part) !== undefined,
      `must hold one or more keys, separated by commas, each ${KEY_FORM}`,
    ),
  },
  CHECKPOINT_ENCRYPTION: {
    name: 'CHECKPOINT_ENCRYPTION',
    kind: 'boolean',
    default: 'false',
    description:
      "Encrypt what LangGraph's checkpointer stores of channels and writes with `ENCRYPTION_KEY`. On PostgreSQL it needs that variable.",
  },
  CHECKPOINT_ALLOW_PLAINTEXT: {
    name: 'CHECKPOINT_ALLOW_PLAINTEXT',
    kind: 'boolean',
    default: 'false',
    description:
      'With `CHECKPOINT_ENCRYPTION`: read values that were stored before it was turned on. `false`: they are refused.',
  },
  HOST: {
    name: 'HOST',
    kind: 'text',
    default: '127.0.0.1',
    description: 'Address to listen on. In mode `single-user` only loopback is accepted.',
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
      'Who may call. `single-user`: whoever reaches the loopback address; everything belongs to user `local`. `accounts`: users of this installation, by password. `jwt`: users of an external provider, by its tokens. `proxy`: whom a trusted proxy names. API keys work in all but the first.',
    check: oneOf('single-user', 'accounts', 'jwt', 'proxy'),
  },
  AUTH_SECRET: {
    name: 'AUTH_SECRET',
    kind: 'secret',
    description:
      'Signs the tokens of `accounts`: 32 random characters or more, the same on all servers. A list (comma-separated) to change it: the first signs, all verify. Default: made once, in `DATA_DIR/auth.secret`; required with `NODE_ENV=production`.',
    check: listOf(
      (secret) => secret.length >= 32,
      'must be 32 characters or more, or a comma-separated list of such',
    ),
  },
  ACCESS_TOKEN_TTL_S: {
    name: 'ACCESS_TOKEN_TTL_S',
    kind: 'integer',
    default: '3600',
    description: 'Seconds that an access token of `accounts` is good for.',
    check: between(1, 86_400),
  },
  REFRESH_TOKEN_TTL_S: {
    name: 'REFRESH_TOKEN_TTL_S',
    kind: 'integer',
    default: '604800',
    description: 'Seconds after which a sign-in that was not refreshed ends.',
    check: between(1, 31_536_000),
  },
  BCRYPT_COST: {
    name: 'BCRYPT_COST',
    kind: 'integer',
    default: '12',
    description: 'log2 of the rounds of bcrypt; one more doubles the time of a sign-in (12: about 0.3 s).',
    check: between(4, 18),
  },
  REGISTRATION: {
    name: 'REGISTRATION',
    kind: 'boolean',
    default: 'false',
    description: 'Whether anybody may make an account of their own in mode `accounts`.',
  },
  LOGIN_LIMIT_PER_USER: {
    name: 'LOGIN_LIMIT_PER_USER',
    kind: 'integer',
    default: '10',
    description: 'Failed sign-ins in 15 minutes for one username or email; then it is `rate_limited`.',
    check: between(1, 1_000_000),
  },
  LOGIN_LIMIT_PER_ADDRESS: {
    name: 'LOGIN_LIMIT_PER_ADDRESS',
    kind: 'integer',
    default: '100',
    description: 'Failed sign-ins in 15 minutes from one address (IPv6: one /64 network).',
    check: between(1, 1_000_000),
  },
  RATE_LIMIT_PER_MINUTE: {
    name: 'RATE_LIMIT_PER_MINUTE',
    kind: 'integer',
    description:
      'Requests a minute of one user to one endpoint, and of one address to a public one; 0 for no limit. Default: 1000, and no limit in mode `single-user`.',
    check: between(0, 1_000_000_000),
  },
  JWT_JWKS_URL: {
    name: 'JWT_JWKS_URL',
    kind: 'text',
    description: "Mode `jwt`: where the provider's public keys are.",
    check: checkHttpUrl,
  },
  JWT_ISSUER: {
    name: 'JWT_ISSUER',
    kind: 'text',
    description: 'Mode `jwt`: what `iss` of a token must be.',
  },
  JWT_AUDIENCE: {
    name: 'JWT_AUDIENCE',
    kind: 'text',
    description:
      'Mode `jwt`: what `aud` of a token must hold, or a comma-separated list of which it must hold one. Not looked at when not set: then tokens that the provider issued for other applications are accepted.',
    check: listOf(() => true, 'must hold an audience'),
  },
  JWT_ALGORITHMS: {
    name: 'JWT_ALGORITHMS',
    kind: 'text',
    default: 'RS256,ES256',
    description: 'Mode `jwt`: signature algorithms that are accepted.',
    check: listOf(
      (name) => JWT_ALGORITHMS.has(name),
      `must hold one or more of these, and nothing else: ${[...JWT_ALGORITHMS].join(', ')}`,
    ),
  },
  JWT_CLOCK_SKEW_S: {
    name: 'JWT_CLOCK_SKEW_S',
    kind: 'integer',
    default: '30',
    description: "Mode `jwt`: seconds by which the provider's clock may differ.",
    check: between(0, 600),
  },
  PROXY_SECRET: {
    name: 'PROXY_SECRET',
    kind: 'secret',
    description:
      'Mode `proxy`: what the proxy sends in `X-Proxy-Secret` beside `X-User-Id`, 32 characters or more.',
    check: (value) => (value.length >= 32 ? undefined : 'must be 32 characters or more'),
  },
  METRICS_TOKEN: {
    name: 'METRICS_TOKEN',
    kind: 'secret',
    description:
      'Bearer token that may read `/metrics` and nothing else, 16 characters or more. Without it: superusers, and anybody in mode `single-user`.',
    check: (value) => (value.length >= 16 ? undefined : 'must be 16 characters or more'),
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
    description:
      '`production` refuses to start without `DATABASE_URL` or `ENCRYPTION_KEY`, and in mode `accounts` without `AUTH_SECRET`.',
  },
} as const satisfies Record<string, Variable>
