import { once } from 'node:events'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Engine, engines } from '../../test/harness.ts'
import { type Api, expectErrorShape, type Json, openApi } from '../../test/http.ts'

const LIMITS = {
  headerBytes: 8_000,
  headersTimeoutMs: 300,
  requestTimeoutMs: 600,
  handlerTimeoutMs: 400,
  keepAliveTimeoutMs: 300,
  connections: 20,
}
const HEAD = 'HTTP/1.1\r\nhost: localhost\r\n'

type Answer = { status: number; headers: Record<string, string>; body: Json }

/** A client that may be as slow as it likes. */
function dial(port: number) {
  const socket: Socket = connect(port, '127.0.0.1')
  let text = ''
  socket.setEncoding('utf8').on('data', (chunk) => {
    text += chunk
  })
  socket.on('error', () => {})
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
  return {
    socket,
    closed,
    text: () => text,
    /** What came until the server closed the connection. */
    async answer(): Promise<Answer> {
      await closed
      return readAnswer(text)
    },
  }
}

function readAnswer(text: string): Answer {
  const [head = '', body = ''] = text.split('\r\n\r\n')
  const [first = '', ...lines] = head.split('\r\n')
  const headers = Object.fromEntries(lines.map((line) => line.split(': ') as [string, string]))
  return { status: Number(first.split(' ')[1]), headers, body: JSON.parse(body) }
}

describe('limits of a connection', () => {
  const api = {} as Api
  let port = 0
  beforeAll(async () => {
    Object.assign(api, await openApi(engines[0] as Engine, { limits: LIMITS }))
    for (const url of ['/slow', '/api/slow-stream'])
      api.app.get(url, { config: { stream: url !== '/slow' } }, async () => {
        await delay(LIMITS.handlerTimeoutMs + 300)
        return { late: true }
      })
    await api.app.listen({ host: '127.0.0.1', port: 0 })
    port = (api.app.server.address() as AddressInfo).port
  })
  afterAll(async () => {
    await api.app?.close()
    await api.opened?.close()
  })

  const lives = async () => {
    expect((await fetch(`http://127.0.0.1:${port}/health`)).status).toBe(200)
  }
  const expectRefusal = (answer: Answer, status: number, code: string) => {
    expect(answer.status).toBe(status)
    expect(answer.body.error.code).toBe(code)
    expectErrorShape(answer)
    expect(answer.headers['x-content-type-options']).toBe('nosniff')
  }

  test('headers that come a byte at a time end with 408', async () => {
    const client = dial(port)
    client.socket.write(`GET /health ${HEAD}x-slow: `)
    const drip = setInterval(() => client.socket.write('a'), 50)
    expectRefusal(await client.answer(), 408, 'invalid_input')
    clearInterval(drip)
    await lives()
  })

  test('many of them do not keep others out', async () => {
    const clients = Array.from({ length: LIMITS.connections - 5 }, () => dial(port))
    for (const { socket } of clients) socket.write(`GET /health ${HEAD}x: `)
    await lives()
    for (const client of clients) expectRefusal(await client.answer(), 408, 'invalid_input')
    await lives()
  })

  test('a body that does not come ends the request', async () => {
    const client = dial(port)
    client.socket.write(
      `POST /api/threads ${HEAD}content-type: application/json\r\ncontent-length: 100\r\n\r\n{"title":`,
    )
    const answer = await client.answer()
    // the time for an answer is over first, since it is the shorter one here
    expectRefusal(answer, 503, 'unavailable')
    await lives()
  })

  test('an upload may take longer than a request, but not stop', async () => {
    const head = `POST /api/files ${HEAD}content-type: application/octet-stream\r\ncontent-length: 20\r\nconnection: close\r\n\r\n`
    const slow = dial(port)
    slow.socket.write(head)
    for (let i = 0; i < 20; i++) {
      await delay(100)
      slow.socket.write('x')
    }
    await slow.closed
    expect(slow.text()).toMatch(/^HTTP\/1.1 201 /)
    const stopping = dial(port)
    stopping.socket.write(`${head}xxx`)
    await stopping.closed
    expect(stopping.text()).toBe('')
    const { items } = (await api.call('GET', '/api/files')).body
    expect(items.map(({ size }: Json) => size)).toEqual([20])
    // the connection is gone before what it left
    await delay(300)
    expect(await api.opened.tb.blobs.sweepStaged(-1_000)).toBe(0)
  })

  test('a body that comes too slowly ends with 408 where the handler may take longer', async () => {
    const patient = await openApi(engines[0] as Engine, { limits: { ...LIMITS, handlerTimeoutMs: 60_000 } })
    try {
      await patient.app.listen({ host: '127.0.0.1', port: 0 })
      const client = dial((patient.app.server.address() as AddressInfo).port)
      client.socket.write(
        `POST /api/threads ${HEAD}content-type: application/json\r\ncontent-length: 100\r\n\r\n{`,
      )
      const drip = setInterval(() => client.socket.write(' '), 50)
      expectRefusal(await client.answer(), 408, 'invalid_input')
      clearInterval(drip)
    } finally {
      await patient.app.close()
      await patient.opened.close()
    }
  })

  test('headers beyond the limit end with 431', async () => {
    for (const request of [
      `GET /health ${HEAD}x: ${'y'.repeat(LIMITS.headerBytes)}\r\n\r\n`,
      `GET /health?${'y'.repeat(LIMITS.headerBytes)} ${HEAD}\r\n`,
      `GET /health ${HEAD}${Array.from({ length: 1_200 }, (_, i) => `x-${i}: y`).join('\r\n')}\r\n\r\n`,
    ]) {
      const client = dial(port)
      client.socket.write(request)
      expectRefusal(await client.answer(), 431, 'too_large')
    }
    const client = dial(port)
    client.socket.write(`GET /health ${HEAD}x: ${'y'.repeat(4_000)}\r\nconnection: close\r\n\r\n`)
    expect((await client.answer()).status).toBe(200)
  })

  test('a path parameter beyond the limit is refused', async () => {
    const answer = await fetch(`http://127.0.0.1:${port}/api/threads/${'a'.repeat(600)}`)
    expect(answer.status).toBe(400)
    expectErrorShape({ body: await answer.json(), headers: Object.fromEntries(answer.headers) })
  })

  test('an idle connection is closed', async () => {
    const client = dial(port)
    client.socket.write(`GET /health ${HEAD}\r\n`)
    const answer = await client.answer()
    expect(answer.status).toBe(200)
  })

  test('a handler that takes too long is 503, and what it gives later does no harm', async () => {
    const answer = await fetch(`http://127.0.0.1:${port}/slow`)
    expect(answer.status).toBe(503)
    expect(answer.headers.get('retry-after')).toBe('1')
    const body = (await answer.json()) as Json
    expect(body.error).toMatchObject({ code: 'unavailable', message: expect.stringContaining('0.4 s') })
    expectErrorShape({ body, headers: Object.fromEntries(answer.headers) })
    await delay(500)
    await lives()
    expect(api.logged.filter(({ level }) => level >= 50)).toEqual([])
  })

  test('a stream has no such limit', async () => {
    const answer = await fetch(`http://127.0.0.1:${port}/api/slow-stream`)
    expect([answer.status, await answer.json()]).toEqual([200, { late: true }])
  })

  test('connections beyond the limit are closed, once there is room others are served', async () => {
    const clients = Array.from({ length: LIMITS.connections }, () => dial(port))
    await Promise.all(clients.map(({ socket }) => once(socket, 'connect')))
    const late = dial(port)
    late.socket.write(`GET /health ${HEAD}\r\n`)
    await late.closed
    expect(late.text()).toBe('')
    for (const { socket } of clients) socket.destroy()
    await Promise.all(clients.map(({ closed }) => closed))
    await expect
      .poll(() =>
        lives().then(
          () => true,
          () => false,
        ),
      )
      .toBe(true)
    expect(api.logged.filter(({ msg }) => msg?.includes('too many connections'))).toHaveLength(1)
  })

  test('bytes that are not HTTP do not become a part of an answer under way', async () => {
    const client = dial(port)
    client.socket.write(`GET /api/slow-stream ${HEAD}\r\n`)
    await delay(50)
    client.socket.write('garbage\r\n\r\n')
    await client.closed
    // either one whole answer or none
    expect(client.text()).toMatch(/^HTTP\/1.1 400 /)
    expect(client.text().split('HTTP/1.1 ')).toHaveLength(2)
    await lives()
  })
})
