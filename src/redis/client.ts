import { Redis } from 'ioredis'
import { ThreadbaseError } from '../core/errors.ts'
import { connectorTo } from './connector.ts'
import { describeRedis, parseRedisUrl, type RedisAddress } from './url.ts'

export type LinkOptions = {
  /** A `redis://` or `rediss://` URL. Never logged, never part of an error. */
  url: string
  /** What the connection is for: its name in `client list`. */
  name: string
  /** How long a command may take. Default 250. */
  timeoutMs?: number
  /** How long opening waits for Redis before it goes on without. Default 1000. */
  startTimeoutMs?: number
  /** Called whenever a connection is ready, the first one too. */
  onReady?: () => void
  /** Called when the connection is lost or cannot be made, again for each attempt; `reason` is a word without secrets. */
  onAway?: (reason: string) => void
}

/** One connection to Redis that comes back by itself and never makes a caller wait for long. */
export type RedisLink = {
  readonly description: string
  readonly client: Redis
  isReady(): boolean
  /** Resolves when it is ready, and after `startTimeoutMs` without Redis: it keeps trying in the background. */
  started(): Promise<void>
  /**
   * Runs a command. At once `unavailable` while there is no connection, and for a second after a command that got no
   * answer in time: a Redis that hangs costs its callers one timeout a second.
   */
  call<T>(command: (client: Redis) => Promise<T>): Promise<T>
  /** Within a fraction of a second, whatever Redis does. */
  close(): Promise<void>
}

const PAUSE_MS = 1_000
const CLOSE_GRACE_MS = 100

/**
 * Begins to connect to Redis, and goes on trying until it is closed.
 * @throws invalid_input for a URL that is none
 */
export function createRedisLink(options: LinkOptions): RedisLink {
  const address = parseRedisUrl(options.url)
  if (address === undefined) throw new ThreadbaseError('invalid_input', 'the URL of Redis is not valid')
  const description = describeRedis(address)
  const client = new Redis(clientOptions(address, options.name))
  const timeoutMs = options.timeoutMs ?? 250
  let closed = false
  let pausedUntil = 0
  let reason = 'timeout'

  client.on('error', (error: unknown) => {
    reason = reasonOf(error)
  })
  client.on('ready', () => {
    reason = 'ECONNRESET'
    if (!closed) options.onReady?.()
  })
  client.on('close', () => {
    if (!closed) options.onAway?.(reason)
  })

  const isReady = () => !closed && client.status === 'ready' && performance.now() >= pausedUntil
  const unavailable = (why: string) =>
    new ThreadbaseError('unavailable', `${description} does not answer (${why})`, { reason: why })
  const drop = (why: string) => {
    if (closed) return
    reason = why
    pausedUntil = performance.now() + PAUSE_MS
    options.onAway?.(why)
    client.disconnect(true)
  }
  const call = async <T>(command: (client: Redis) => Promise<T>): Promise<T> => {
    if (closed) throw new ThreadbaseError('unavailable', `the connection to ${description} is closed`)
    if (!isReady()) throw unavailable(reason)
    try {
      return await within(timeoutMs, command(client))
    } catch (error) {
      // the driver's errors hold the command with its values, and AUTH is one: they go no further
      const why = reasonOf(error)
      if (error instanceof TimeoutError && isReady()) drop(why)
      throw unavailable(why)
    }
  }
  const close = async () => {
    if (closed) return
    closed = true
    // between two attempts there is nothing that could end
    const ends = client.status !== 'reconnecting'
    const ended = new Promise<void>((resolve) => client.once('end', resolve))
    client.disconnect()
    if (ends) await atMost(CLOSE_GRACE_MS * 3, ended)
  }
  const ready = new Promise<void>((resolve) => client.once('ready', resolve))
  const started = async () => {
    await atMost(options.startTimeoutMs ?? 1_000, ready)
    if (!isReady() && !closed) options.onAway?.(reason)
  }
  // a refused first attempt is not the end: the driver tries again
  client.connect().catch(() => {})
  return { description, client, isReady, started, call, close }
}

function clientOptions(address: RedisAddress, name: string) {
  const { username, password, database: db } = address
  return {
    Connector: connectorTo(address, CLOSE_GRACE_MS),
    username,
    password,
    db,
    connectionName: `threadbase-${name}`,
    disableClientInfo: true,
    lazyConnect: true,
    // a command is sent now or fails now: one that is sent again later could count twice
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    autoResubscribe: false,
    maxRetriesPerRequest: 0,
    connectTimeout: 2_000,
    // of the handshake; `call` has its own, shorter one
    commandTimeout: 1_000,
    maxLoadingRetryTime: 500,
    keepAlive: 10_000,
    // after a failover the name leads to another server; who stays would be refused for ever
    reconnectOnError: (error: Error) => error.message.startsWith('READONLY'),
    retryStrategy: (attempt: number) => Math.min(1_000, 25 * 2 ** attempt) * (0.5 + Math.random() / 2),
  }
}

async function atMost(ms: number, end: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms)
  })
  await Promise.race([end, late])
  clearTimeout(timer)
}

class TimeoutError extends Error {}

/** The command's answer. When this process was the slow one, an answer that has come already still counts. */
async function within<T>(ms: number, answer: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    // what the socket holds is read before the immediate runs
    timer = setTimeout(() => setImmediate(() => reject(new TimeoutError('timeout'))), ms)
  })
  try {
    return await Promise.race([answer, late])
  } finally {
    clearTimeout(timer)
  }
}

/** A word that says what went wrong: ECONNREFUSED, WRONGPASS, timeout. Never a text that could hold a credential. */
function reasonOf(error: unknown): string {
  if (error instanceof TimeoutError) return 'timeout'
  const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown }
  if (typeof code === 'string' && /^\w+$/.test(code)) return code
  const text = typeof message === 'string' ? message : ''
  if (text === 'Command timed out') return 'timeout'
  return /^[A-Z]+(?= )/.exec(text)?.[0] ?? 'ECONNRESET'
}
