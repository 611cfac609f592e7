import type { Duplex } from 'node:stream'
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
  /** How long a statement may take, migrations apart, before its caller gets `unavailable`. Default 60. */
  queryTimeoutS?: number
  /** How long closing waits for statements that run before it breaks their connections off. Default 5. */
  closeGraceS?: number
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
  const clients = trackClients()
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
    Client: clients.Client,
  })
  // to compile a plan takes longer than any of our statements, and costs that are only estimated set it off
  pool.on('connect', (client) => void client.query('set jit = off').catch(() => {}))
  const source = poolSource(pool, clients, (options.closeGraceS ?? 5) * 1_000, options.log)
  try {
    await connectWithBackoff(source, (options.startTimeoutS ?? 30) * 1_000, options.log)
  } catch (error) {
    await source.close(0)
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
    {
      ...options,
      preparedStatements: options.preparedStatements ?? true,
      queryTimeoutMs: (options.queryTimeoutS ?? 60) * 1_000,
    },
  )
}

/** What is needed of a `pg.Pool` that belongs to somebody else. */
export type PoolLike = { connect(): Promise<unknown> }

/** A database over a pool of the application's, which also ends it: closing this one only stops its use. */
export function usePool(
  given: PoolLike,
  options: CommonOptions & Pick<PostgresOptions, 'preparedStatements'>,
): Database {
  const pool = given as pg.Pool
  const sessions = new WeakMap<pg.PoolClient, Session>()
  const source: SessionSource = {
    shared: false,
    acquire: async () => {
      const client = await connect(pool)
      const known = sessions.get(client)
      if (known !== undefined) return known
      const session: Session = { client, broken: false, destroy: () => breakOff(client) }
      const markBroken = () => {
        session.broken = true
      }
      client.on('error', markBroken)
      client.on('end', markBroken)
      sessions.set(client, session)
      return session
    },
    release: (session) => (session.client as pg.PoolClient).release(session.broken),
    close: async () => {},
  }
  const stats = () => ({ open: pool.totalCount, idle: pool.idleCount, waiting: pool.waitingCount })
  return createDatabase(
    source,
    { engine: 'postgres', description: "PostgreSQL of the application's pool", parallelism: 2, stats },
    { ...options, preparedStatements: options.preparedStatements ?? true, queryTimeoutMs: undefined },
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

type PoolSource = Omit<SessionSource, 'close'> & { close(graceMs?: number): Promise<void> }

type Clients = {
  Client: typeof pg.Client
  /** Resolves when all connections are closed; those that take longer are broken off. */
  allGone(withinMs: number): Promise<void>
}

/** Every connection of a pool, also those that it is still making or has given up. */
function trackClients(): Clients {
  const gone = new Map<pg.Client, Promise<void>>()
  class Client extends pg.Client {
    constructor(config?: string | pg.ClientConfig) {
      super(config)
      const end = new Promise<void>((resolve) => this.once('end', resolve))
      gone.set(
        this,
        end.then(() => void gone.delete(this)),
      )
    }
  }
  const allGone = async (withinMs: number) => {
    const timer = setTimeout(() => {
      for (const client of gone.keys()) breakOff(client)
    }, withinMs)
    await Promise.all(gone.values())
    clearTimeout(timer)
  }
  return { Client, allGone }
}

/** Without a goodbye, which a silent server would not take: what runs on the connection fails at once. */
function breakOff(client: pg.ClientBase): void {
  ;(client as unknown as { connection: { stream: Duplex } }).connection.stream.destroy()
}

function poolSource(pool: pg.Pool, clients: Clients, closeGraceMs: number, log: Logger): PoolSource {
  const sessions = new WeakMap<pg.PoolClient, Session & { usedAt: number }>()
  const waiting = new Set<() => void>()
  // The pool drops an idle connection that died; without a listener Node would end the process.
  pool.on('error', (error) => log.warn({ code: sqlState(error) }, 'an idle database connection was lost'))
  pool.on('connect', (client) => {
    const markBroken = () => {
      session.broken = true
    }
    const destroy = () => {
      markBroken()
      breakOff(client)
    }
    const session = { client, broken: false, destroy, usedAt: Date.now() }
    sessions.set(client, session)
    client.on('error', markBroken)
    client.on('end', markBroken)
  })
  const sessionOf = (client: pg.PoolClient) => {
    const session = sessions.get(client)
    if (session === undefined) throw new Error('the pool gave out a connection that it never announced')
    return session
  }
  /** As `connect`, but the pool being closed ends the wait, which the pool itself does not. */
  const connectUnlessClosed = () =>
    new Promise<pg.PoolClient>((resolve, reject) => {
      const giveUp = () => reject(new ThreadbaseError('unavailable', 'the database is closed'))
      waiting.add(giveUp)
      connect(pool).then(
        (client) => (waiting.delete(giveUp) ? resolve(client) : client.release()),
        (error) => {
          waiting.delete(giveUp)
          reject(error)
        },
      )
    })
  return {
    shared: false,
    acquire: async () => {
      for (;;) {
        const session = sessionOf(await connectUnlessClosed())
        if (Date.now() - session.usedAt < PING_AFTER_MS || (await answers(session))) return session
        ;(session.client as pg.PoolClient).release(true)
      }
    },
    release: (session) => {
      sessionOf(session.client as pg.PoolClient).usedAt = Date.now()
      ;(session.client as pg.PoolClient).release(session.broken)
    },
    close: async (graceMs = closeGraceMs) => {
      for (const giveUp of waiting) giveUp()
      waiting.clear()
      // ends those that are idle now and the others when they come back, which callers may never do
      void pool.end()
      await clients.allGone(graceMs)
    },
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
