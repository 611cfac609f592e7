import { ThreadbaseError } from '../core/errors.ts'
import { type Logger, silentLog } from '../core/log.ts'
import type { Bus } from './bus.ts'
import { createListeners } from './listeners.ts'

/** A bus within this process. Messages arrive after `publish` has returned, as they do from a server. */
export function createLocalBus(log: Logger = silentLog): Bus {
  const listeners = createListeners(log)
  let closed = false
  const requireOpen = () => {
    if (closed) throw new ThreadbaseError('unavailable', 'the bus is closed')
  }
  return {
    engine: 'local',
    description: 'in this process',
    shared: false,
    publish: async (channel, message) => {
      requireOpen()
      setImmediate(() => listeners.deliver(channel.toWellFormed(), message.toWellFormed()))
    },
    subscribe: async (channel, onMessage) => {
      requireOpen()
      const remove = listeners.add(channel.toWellFormed(), onMessage)
      return async () => {
        remove()
      }
    },
    connected: () => !closed,
    // there is never a gap
    onReconnect: () => {},
    close: async () => {
      closed = true
      listeners.clear()
    },
  }
}
