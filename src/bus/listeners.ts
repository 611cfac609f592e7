import type { Logger } from '../core/log.ts'

/** Who listens to which channel of a bus. */
export type Listeners = {
  channels(): string[]
  /** Returns a function that takes the listener out; true when the channel then has none. */
  add(channel: string, onMessage: (message: string) => void): () => boolean
  /** In the order of `add`. One that throws is logged and stops no other. */
  deliver(channel: string, message: string): void
  clear(): void
}

export function createListeners(log: Logger): Listeners {
  const byChannel = new Map<string, Set<{ onMessage: (message: string) => void }>>()
  return {
    channels: () => [...byChannel.keys()],
    add: (channel, onMessage) => {
      const all = byChannel.get(channel) ?? new Set()
      byChannel.set(channel, all)
      // a function may listen twice
      const listener = { onMessage }
      all.add(listener)
      return () => {
        if (!all.delete(listener) || all.size > 0 || byChannel.get(channel) !== all) return false
        return byChannel.delete(channel)
      }
    },
    deliver: (channel, message) => {
      for (const { onMessage } of byChannel.get(channel) ?? []) {
        try {
          onMessage(message)
        } catch (err) {
          log.error({ err, channel }, 'a listener of the bus failed')
        }
      }
    },
    clear: () => {
      for (const all of byChannel.values()) all.clear()
      byChannel.clear()
    },
  }
}
