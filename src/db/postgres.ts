import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { ThreadbaseError } from '../core/errors.ts'
import type { Logger } from '../core/log.ts'
import { type CommonOptions, createDatabase, type Database } from './database.ts'
import type { Session, SessionSource } from './driver.ts'
import { isConnectionLoss, mapDbError, sqlState } from './errors.ts'
import { typeParsers } from './types.ts'

export type PostgresOptions = CommonOptions & {
  /** A `postgres://` URL. Never logged, never part of an error. */
  url: string
  /** Connections kept open when nobody needs them. Default 5. */
  poolSize?: number
  /** Connections beyond that under load, closed when idle. Default 10. */
  maxOverflow?: number
  /** Default 30. */
  idleTimeoutS?: number
  /** How long a caller waits for a connection before `unavailable`. Default 10. */
  acquireTimeoutS?: number
  /** How long opening retries, with exponential backoff, before it fails. Default 30; 0 tries once. */
  startTimeoutS?: number
  /** Default true; false behind PgBouncer in transaction mode. */
  preparedStatements?: boolean
}

// A connection idle for longer than this is asked before use whether it still lives.
const PING_AFTER_MS = 5_000
const PING_TIMEOUT_MS = 2_000

/**
 * Opens a PostgreSQL database (15 to 18) and waits until it answers.
 * @throws unavailable when it does not within `startTimeoutS`, and at once when it refuses the credentials.
 */
export async function openPostgres(options: PostgresOptions): Promise<Database> {
  const poolSize = options.poolSize ?? 5
  const pool = new pg.Pool({
    connectionString: options.url,
    min: poolSize,
    max: poolSize + (options.maxOverflow ?? 10),
    idleTimeoutMillis: (options.idleTimeoutS ?? 30) * 1_000,
    connectionTimeoutMillis: (options.acquireTimeoutS ?? 10) * 1_000,
    application_name: 'threadbase',
    keepAlive: true,
    pipeline: true,
    types: typeParsers,
  })
  const source = poolSource(pool, options.log)
  try {
    await connectWithBackoff(source, (options.startTimeoutS ?? 30) * 1_000, options.log)
  } catch (error) {
    await source.close()
    throw error
  }
  return createDatabase(
    source,
    {
      engine: 'postgres',
      description: describe(options.url),
      parallelism: 2,
      stats: () => ({ open: pool.totalCount, idle: pool.idleCount, waiting: pool.waitingCount }),
    },
    { ...options, preparedStatements: options.preparedStatements ?? true },
  )
}

/** Host, port and database: what tells one server from another and is no secret. */
function describe(url: string): string {
  try {
    const { hostname, port, pathname, searchParams } = new URL(url)
    const host = hostname || searchParams.get('host') || 'local socket'
    return `PostgreSQL at ${decodeURIComponent(host)}${port === '' ? '' : `:${port}`}${pathname}`
  } catch {
    return 'PostgreSQL'
  }
}

function poolSource(pool: pg.Pool, log: Logger): SessionSource {
  const sessions = new WeakMap<pg.PoolClient, Session & { usedAt: number }>()
  // The pool drops an idle connection that died; without a listener Node would end the process.
  pool.on('error', (error) => log.warn({ code: sqlState(error) }, 'an idle database connection was lost'))
  pool.on('connect', (client) => {
    const session = { client, broken: false, usedAt: Date.now() }
    sessions.set(client, session)
    const markBroken = () => {
      session.broken = true
    }
    client.on('error', markBroken)
    client.on('end', markBroken)
  })
  const sessionOf = (client: pg.PoolClient) => {
    const session = sessions.get(client)
    if (session === undefined) throw new Error('the pool gave out a connection that it never announced')
    return session
  }
  return {
    shared: false,
    acquire: async () => {
      for (;;) {
        const session = sessionOf(await connect(pool))
        if (Date.now() - session.usedAt < PING_AFTER_MS || (await answers(session))) return session
        ;(session.client as pg.PoolClient).release(true)
      }
    },
    release: (session) => {
      sessionOf(session.client as pg.PoolClient).usedAt = Date.now()
      ;(session.client as pg.PoolClient).release(session.broken)
    },
    close: () => pool.end(),
  }
}

async function connect(pool: pg.Pool): Promise<pg.PoolClient> {
  try {
    return await pool.connect()
  } catch (error) {
    // the pool's own timeout has no code: it is the only error of its kind
    throw mapDbError(error, sqlState(error) === undefined)
  }
}

async function answers(session: Session): Promise<boolean> {
  try {
    await session.client.query({ text: 'select 1', query_timeout: PING_TIMEOUT_MS } as pg.QueryConfig)
    return !session.broken
  } catch {
    return false
  }
}

async function connectWithBackoff(source: SessionSource, limitMs: number, log: Logger): Promise<void> {
  const deadline = Date.now() + limitMs
  for (let attempt = 1; ; attempt++) {
    try {
      source.release(await source.acquire())
      return
    } catch (error) {
      const cause = error instanceof ThreadbaseError ? error.cause : error
      if (isRefusal(cause)) throw refused(cause)
      const pause = Math.min(5_000, 100 * 2 ** attempt) * (0.5 + Math.random() / 2)
      if (Date.now() + pause > deadline) throw gaveUp(attempt, cause)
      log.warn({ attempt, retryInMs: Math.round(pause) }, 'the database does not answer yet')
      await delay(pause)
    }
  }
}

// What the driver says without a code when the URL cannot be right: no password though the server asks for one, or
// sslmode on a server without TLS. Trying again would only hide it.
const NEVER_WORKS = /^SASL: |does not support SSL/

function isRefusal(cause: unknown): boolean {
  if (sqlState(cause) !== undefined) return !isConnectionLoss(cause)
  return cause instanceof Error && NEVER_WORKS.test(cause.message)
}

function refused(cause: unknown): ThreadbaseError {
  const state = sqlState(cause)
  const reason =
    state === '3D000'
      ? 'has no such database'
      : 'refused the connection: check user, password, rights and sslmode'
  return new ThreadbaseError(
    'unavailable',
    `the database server of DATABASE_URL ${reason}`,
    { sqlstate: state },
    { cause },
  )
}

function gaveUp(attempts: number, cause: unknown): ThreadbaseError {
  const code = (cause as { code?: unknown } | undefined)?.code
  return new ThreadbaseError(
    'unavailable',
    `the database of DATABASE_URL did not answer (${attempts} attempts${typeof code === 'string' ? `, last: ${code}` : ''})`,
    { attempts },
    { cause },
  )
}
