import { ThreadbaseError } from '../core/errors.ts'
import type { Logger } from '../core/log.ts'
import { createRedisLink, type LinkOptions, type RedisLink } from '../redis/client.ts'
import type { Bus } from './bus.ts'
import { createListeners, type Listeners } from './listeners.ts'

export type RedisBusOptions = {
  /** A `redis://` or `rediss://` URL. Never logged, never part of an error. */
  url: string
  /** Comes before every channel. */
  prefix: string
  log: Logger
  /** How long a call may take. Default 250. */
  timeoutMs?: number
  /** How long opening waits for Redis before it goes on without. Default 1000. */
  startTimeoutMs?: number
}

// With the time a command may take: how long a connection that died silently goes unnoticed.
const HEARTBEAT_MS = 500

/**
 * A bus between all processes on the same Redis and prefix. Redis being away does not fail the opening: `connected()`
 * is false until it is back; each outage is logged once.
 * @throws invalid_input for a URL that is none
 */
export async function openRedisBus(options: RedisBusOptions): Promise<Bus> {
  const { prefix, log, url, timeoutMs, startTimeoutMs } = options
  const common = { url, timeoutMs, startTimeoutMs }
  const listeners = createListeners(log)
  const publisher = createRedisLink({ ...common, name: 'publisher' })
  const receiver = createReceiver(common, listeners, log)
  let closed = false
  const requireOpen = () => {
    if (closed) throw new ThreadbaseError('unavailable', 'the bus is closed')
  }
  const nameOf = (channel: string) => (prefix + channel).toWellFormed()
  await Promise.all([publisher.started(), receiver.link.started()])
  return {
    engine: 'redis',
    description: publisher.description,
    shared: true,
    publish: async (channel, message) => {
      requireOpen()
      await publisher.call((redis) => redis.publish(nameOf(channel), message))
    },
    subscribe: async (channel, onMessage) => {
      requireOpen()
      const name = nameOf(channel)
      const remove = listeners.add(name, onMessage)
      try {
        await receiver.begin(name)
        requireOpen()
      } catch (error) {
        remove()
        throw error
      }
      return async () => {
        if (remove()) await receiver.end(name)
      }
    },
    connected: () => receiver.isListening(),
    onReconnect: (listener) => receiver.onReconnect(listener),
    close: async () => {
      closed = true
      listeners.clear()
      await Promise.all([publisher.close(), receiver.close()])
    },
  }
}

type Receiver = {
  link: RedisLink
  isListening(): boolean
  /** Resolves when Redis sends the channel's messages, and at once while there is no connection. */
  begin(name: string): Promise<void>
  end(name: string): Promise<void>
  onReconnect(listener: () => void): void
  close(): Promise<void>
}

/** The connection that listens: to all channels that have listeners, again after each loss. */
function createReceiver(
  options: Omit<LinkOptions, 'name'>,
  { channels, deliver }: Listeners,
  log: Logger,
): Receiver {
  const reconnectListeners: (() => void)[] = []
  let listening = false
  let gap = false
  /** Counts losses, so that what was begun on a connection is not taken for the state of the next. */
  let losses = 0

  const lose = (reason: string) => {
    if (!gap) log.warn({ reason }, 'the bus is away: messages of other processes may be missed')
    gap = true
    listening = false
    losses++
  }
  const listen = async () => {
    const before = losses
    const names = channels()
    if (names.length > 0) await link.call((redis) => redis.subscribe(...names))
    if (before !== losses) return
    listening = true
    if (!gap) return
    gap = false
    log.info({}, 'the bus is back')
    for (const listener of reconnectListeners) notify(listener, log)
  }
  // a listener that is refused, or a pause after a timeout: the heartbeat tries again
  const tryToListen = () => listen().catch(() => {})
  const link = createRedisLink({
    ...options,
    name: 'subscriber',
    onReady: () => void tryToListen(),
    onAway: lose,
  })
  link.client.on('message', deliver)

  let beating = false
  const beat = async () => {
    if (beating || !link.isReady()) return
    beating = true
    // one that is not answered in time ends the connection
    if (listening) await link.call((redis) => redis.ping()).catch(() => {})
    else await tryToListen()
    beating = false
  }
  const heartbeat = setInterval(() => void beat(), HEARTBEAT_MS).unref()
  return {
    link,
    isListening: () => listening && link.isReady(),
    begin: async (name) => {
      if (!link.isReady()) return
      const before = losses
      try {
        await link.call((redis) => redis.subscribe(name))
      } catch (error) {
        // a connection that was lost comes back with all channels; a refusal stays one
        if (before === losses) throw error
      }
    },
    end: async (name) => {
      if (link.isReady()) await link.call((redis) => redis.unsubscribe(name)).catch(() => {})
    },
    onReconnect: (listener) => void reconnectListeners.push(listener),
    close: () => {
      clearInterval(heartbeat)
      listening = false
      return link.close()
    },
  }
}

function notify(listener: () => void, log: Logger): void {
  try {
    listener()
  } catch (err) {
    log.error({ err }, 'a listener of the bus failed')
  }
}
