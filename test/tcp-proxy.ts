import { createConnection, createServer, type Socket } from 'node:net'

export type TcpProxy = {
  port: number
  /** Breaks every connection off and takes no more, as a server that is gone. */
  cut(): void
  restore(): void
  /** From now on passes nothing on, in either direction, and keeps every connection, as a network that lost its way. */
  silence(): void
  close(): Promise<void>
}

/** Stands between a client and a server on the loopback address, so that a test can take the server away. */
export async function startTcpProxy(target: { host: string; port: number }): Promise<TcpProxy> {
  const sockets = new Set<Socket>()
  let away = false
  let silent = false
  const server = createServer((client) => {
    if (away) {
      client.destroy()
      return
    }
    const upstream = createConnection(target)
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.once('close', () => {
        sockets.delete(socket)
        other.destroy()
      })
      if (!silent) socket.pipe(other)
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the proxy has no port')
  const cut = () => {
    away = true
    for (const socket of sockets) socket.destroy()
  }
  const silence = () => {
    silent = true
    for (const socket of sockets) socket.unpipe().pause()
  }
  return {
    port: address.port,
    cut,
    silence,
    restore: () => {
      away = false
      silent = false
    },
    close: async () => {
      cut()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
