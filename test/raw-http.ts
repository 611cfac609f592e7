import { connect, type Socket } from 'node:net'

export type RawClient = {
  socket: Socket
  /** What came so far. */
  text(): string
  /** Waits until what came has this in it; fails when the connection ends without it. */
  until(part: string): Promise<void>
  /** Settles when the connection has ended. */
  ended: Promise<void>
}

/** A client that sends what no HTTP library would. */
export function dial(port: number, host = '127.0.0.1'): RawClient {
  const socket = connect(port, host)
  let text = ''
  let wake = () => {}
  let closed = false
  socket.setEncoding('utf8')
  socket.on('data', (chunk) => {
    text += chunk
    wake()
  })
  socket.on('error', () => {})
  socket.on('close', () => {
    closed = true
    wake()
  })
  const ended = new Promise<void>((resolve) => void socket.once('close', () => resolve()))
  const until = async (part: string) => {
    while (!text.includes(part)) {
      if (closed) throw new Error(`the connection ended; it said: ${text}`)
      await new Promise<void>((resolve) => {
        wake = resolve
      })
    }
  }
  return { socket, text: () => text, until, ended }
}
