import { Readable } from 'node:stream'

const KEEP_ALIVE_MS = 15_000
const NOT_ASCII = /[\u0080-\uffff]/g

/** JSON in ASCII: what a text beyond it has is written as escapes, line separators of Unicode too. */
export function asciiJson(value: unknown): string {
  return JSON.stringify(value).replace(
    NOT_ASCII,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

export type EventStream = {
  /** For the answer: each piece is one whole event, or a comment that keeps proxies from closing the connection. */
  readable: Readable
  send(event: object): void
  end(): void
}

/**
 * Server-sent events, `data: {json}` each. Clients split each read of theirs on line breaks and know nothing of the rest of
 * an event: each is one piece, written at once.
 */
export function createEventStream(keepAliveMs = KEEP_ALIVE_MS): EventStream {
  // in object mode pieces are never joined or cut
  const readable = new Readable({ objectMode: true, read() {} })
  const timer = setInterval(() => readable.push(': keep-alive\n\n'), keepAliveMs)
  readable.once('close', () => clearInterval(timer))
  // a client that went away is no failure
  readable.on('error', () => {})
  const push = (piece: string | null) => {
    if (!readable.destroyed && !readable.readableEnded) readable.push(piece)
  }
  return {
    readable,
    send: (event) => push(`data: ${asciiJson(event)}\n\n`),
    end() {
      clearInterval(timer)
      push(null)
    },
  }
}
