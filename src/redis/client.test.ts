import type { EventEmitter } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { expect, test, vi } from 'vitest'
import { createRedisLink } from './client.ts'

test.each(['redis', 'rediss'])(
  '%s: a connection that fails twice at once ends no process',
  async (scheme) => {
    const sockets: Socket[] = []
    const server = createServer((socket) => void sockets.push(socket.on('error', () => {})))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    const away: string[] = []
    const link = createRedisLink({
      ...{ url: `${scheme}://127.0.0.1:${port}`, name: 'test', startTimeoutMs: 0 },
      onAway: (reason) => void away.push(reason),
    })
    const { client } = link as unknown as { client: { stream?: EventEmitter } }
    await vi.waitFor(() => expect(client.stream).toBeDefined())
    // as TLS does with a certificate that is refused, and what the other side says to that
    const stream = client.stream as EventEmitter
    stream.emit('error', Object.assign(new Error('the first'), { code: 'EFIRST' }))
    stream.emit('error', new Error('the second'))
    await link.close()
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
    expect(away.every((reason) => reason !== 'the second')).toBe(true)
  },
)
