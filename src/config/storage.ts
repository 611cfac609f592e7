import { KEY_FORM, readKey } from '../core/key-ring.ts'
import { DEFAULT_APP_ROLE, DEFAULT_SCHEMA } from '../db/database.ts'
import { parseRedisUrl } from '../redis/url.ts'
import { between, listOf, maxLength, oneOf, type Variable } from './variable.ts'

const JSON_URL = 'json:'

/** The directory of a `json:` URL: what follows, or the path behind `json://`. */
export function jsonDirOf(url: string): string {
  return url.slice(JSON_URL.length).replace(/^\/\/(?=[./])/, '')
}

export const isJsonUrl = (url: string): boolean => url.startsWith(JSON_URL)

function checkDatabaseUrl(value: string): string | undefined {
  // never echo the value: it holds a password
  if (value.startsWith(JSON_URL))
    return jsonDirOf(value) === '' ? 'json: must name a directory, as json:./data does' : undefined
  if (!/^postgres(ql)?:\/\//.test(value)) return 'must be a postgres:// URL, or json: and a directory'
  return URL.canParse(value) || value.startsWith('postgres://%2F') ? undefined : 'is not a valid URL'
}

function checkRedisUrl(value: string): string | undefined {
  // never echo the value: it holds a password
  return parseRedisUrl(value) === undefined
    ? 'must be a redis:// or rediss:// URL without a query'
    : undefined
}

/** Where records are kept, and what encrypts them; bytes are in bytes.ts. */
export const STORAGE = {
  DATABASE_URL: {
    name: 'DATABASE_URL',
    kind: 'secret',
    description:
      'PostgreSQL 15 to 18, as `postgres://user:password@host:5432/database`. Without it: the embedded store in `DATA_DIR`. `json:./data` keeps the conversations of councils and their usage in plain JSON files, and nothing else; for development.',
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
    description: 'Directory of the embedded store, and of the bytes of files where `S3_BUCKET` is not set.',
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
} as const satisfies Record<string, Variable>
