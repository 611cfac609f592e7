import type { AddressInfo } from 'node:net'
import { afterAll, beforeEach, describe, expect, test } from 'vitest'
import { councilAt, councilScript, countAsked, type Exception } from '../../test/council.ts'
import { gate } from '../../test/gate.ts'
import { type Api, describeApi, expectErrorShape, type Json, MISSING_ID, refusal } from '../../test/http.ts'
import { startOpenAiServer } from '../../test/openai-server.ts'
import { dial } from '../../test/raw-http.ts'
import { createEventStream } from '../conversations/council/event-stream.ts'

const server = await startOpenAiServer(councilScript())
afterAll(() => server.close())
const follow = (exception?: Exception) => {
  server.requests.length = 0
  server.follow(councilScript(exception))
}
beforeEach(() => follow())

const ORIGIN = 'https://app.example.com'
const OPTIONS = {
  council: { ...councilAt(server), retries: 0 },
  corsOrigins: [ORIGIN],
  // asking takes as long as it takes
  limits: { handlerTimeoutMs: 400, streamsPerUser: 3 },
}
const ALL = [
  'stage1_start',
  'stage1_complete',
  'stage2_start',
  'stage2_complete',
  'stage3_start',
  'stage3_complete',
]
const SCOPE = { userId: 'local' }

const listening = new WeakMap<object, Promise<number>>()
/** The port of an app, which listens from the first call on. */
function portOf({ app }: Api): Promise<number> {
  const port =
    listening.get(app) ??
    app.listen({ host: '127.0.0.1', port: 0 }).then(() => (app.server.address() as AddressInfo).port)
  listening.set(app, port)
  return port
}

/** A question over a connection of its own, whose every byte is seen. */
async function askRaw(api: Api, id: string, content: string) {
  const port = await portOf(api)
  const client = dial(port)
  const body = JSON.stringify({ content })
  client.socket.write(
    `POST /api/conversations/${id}/message/stream HTTP/1.1\r\nhost: localhost:${port}\r\norigin: ${ORIGIN}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
  )
  return client
}

/** The pieces of a chunked answer, as the server wrote them. */
function chunksOf(text: string): { head: string; chunks: string[] } {
  const [head = '', ...rest] = text.split('\r\n\r\n')
  let body = rest.join('\r\n\r\n')
  const chunks: string[] = []
  for (;;) {
    const end = body.indexOf('\r\n')
    const size = Number.parseInt(body.slice(0, end), 16)
    if (!(size > 0)) return { head, chunks }
    chunks.push(body.slice(end + 2, end + 2 + size))
    body = body.slice(end + 2 + size + 2)
  }
}

const eventOf = (chunk: string): Json => JSON.parse(/^data: (.*)\n\n$/.exec(chunk)?.[1] ?? 'null')

describeApi(
  'the council over HTTP',
  (api) => {
    const newConversation = async () => (await api.call('POST', '/api/conversations', {})).body.id as string
    const read = async (id: string) => (await api.call('GET', `/api/conversations/${id}`)).body
    const used = async () => (await api.opened.tb.usage.read(SCOPE)).totalQueries

    test('each event is one chunk of ASCII, and the answer is the same in one piece', async () => {
      const id = await newConversation()
      const client = await askRaw(api, id, 'Ünïcode \u2028 😀?')
      await client.ended
      const text = client.text()
      expect(text).toMatch(/^[\r\n -~]*$/)
      const { head, chunks } = chunksOf(text)
      expect(head).toMatch(/^HTTP\/1.1 200 /)
      expect(head).toMatch(/\r\ncontent-type: text\/event-stream(\r|$)/)
      expect(head).toMatch(/\r\ncache-control: no-store, no-transform/)
      expect(head).toMatch(/\r\nx-accel-buffering: no/)
      expect(head).not.toMatch(/content-encoding|content-length/)
      expect(head).toContain(`access-control-allow-origin: ${ORIGIN}`)
      const events = chunks.map(eventOf)
      expect(events.map(({ type }) => type)).toEqual([...ALL, 'title_complete', 'complete'])
      const [, answer] = (await read(id)).messages
      expect(events[1]).toEqual({ type: 'stage1_complete', data: answer.stage1 })
      expect(events[3]).toEqual({
        type: 'stage2_complete',
        data: answer.stage2,
        metadata: expect.objectContaining({
          label_to_model: answer.metadata.label_to_model,
          aggregate_rankings: answer.metadata.aggregate_rankings,
        }),
      })
      expect(events[5]).toEqual({ type: 'stage3_complete', data: answer.stage3 })
      expect(events[6]).toEqual({ type: 'title_complete', data: { title: 'About rivers' } })
      expect(answer.stage1[0].response).toContain('Ünïcode \u2028 😀?')

      const whole = await api.call('POST', `/api/conversations/${id}/message`, { content: 'And lakes?' })
      expect(whole.status).toBe(200)
      expect(Object.keys(whole.body)).toEqual(['stage1', 'stage2', 'stage3', 'metadata'])
      expect((await read(id)).messages[3]).toEqual({ role: 'assistant', ...whole.body })
    })

    test('a client that splits each read on line breaks gets every event', async () => {
      const id = await newConversation()
      const response = await fetch(
        `http://127.0.0.1:${await portOf(api)}/api/conversations/${id}/message/stream`,
        {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ content: 'Which rivers?' }),
        },
      )
      const types: string[] = []
      for await (const piece of response.body as AsyncIterable<Uint8Array>)
        for (const line of Buffer.from(piece).toString('latin1').split('\n'))
          if (line.startsWith('data: ')) types.push(JSON.parse(line.slice(6)).type)
      expect(types).toEqual([...ALL, 'title_complete', 'complete'])
    })

    test('an answer takes longer than other requests may', async () => {
      const id = await newConversation()
      follow(async ({ stage }) => {
        if (stage === 'stage1') await new Promise((resolve) => setTimeout(resolve, 600))
        return undefined
      })
      expect((await api.call('POST', `/api/conversations/${id}/message`, { content: 'q' })).status).toBe(200)
      const client = await askRaw(api, id, 'r')
      await client.ended
      expect(client.text()).toContain('"complete"')
    })

    test.each(['stage1', 'stage2', 'stage3'])(
      'a client that goes away in %s loses nothing',
      async (wanted) => {
        const id = await newConversation()
        const before = await used()
        const hold = gate()
        follow(async ({ stage }) => {
          if (stage === wanted) await hold.opened
          return undefined
        })
        const client = await askRaw(api, id, 'Which rivers?')
        await client.until(`${wanted}_start`)
        client.socket.destroy()
        await client.ended
        hold.open()
        await expect.poll(async () => (await read(id)).messages.length, { timeout: 10_000 }).toBe(2)
        expect((await read(id)).messages[1].stage3.response).toBe('alpha concludes')
        await expect.poll(async () => (await read(id)).title).toBe('About rivers')
        expect(await used()).toBe(before + 1)
        expect(Math.max(...Object.values(countAsked(server)))).toBe(1)
      },
    )

    test('what is refused is refused before the stream begins', async () => {
      const id = await newConversation()
      const stream = (path: string, body: unknown, headers = {}) =>
        api.call('POST', `/api/conversations/${path}/message/stream`, body, headers)
      const question = { content: 'Which rivers?' }
      expect(refusal(await stream(MISSING_ID, question))).toMatchObject({ status: 404, code: 'not_found' })
      for (const path of ['..%2F..%2Fetc%2Fpasswd', '.hidden', '%00'])
        expect((await stream(path, question)).status).toBe(400)
      for (const body of [
        {},
        { content: '' },
        { content: ' ' },
        { content: 5 },
        { content: 'x', more: 1 },
        'no json',
      ])
        expect(refusal(await stream(id, body))).toMatchObject({ status: 400, code: 'invalid_input' })
      const long = await stream(id, { content: 'x'.repeat(1_000_001) })
      expect([400, 413]).toContain(long.status)
      expect((await read(id)).messages).toEqual([])
    })

    test('two tabs ask at once: one is told 409, as JSON', async () => {
      const id = await newConversation()
      const hold = gate()
      follow(async () => {
        await hold.opened
        return undefined
      })
      const client = await askRaw(api, id, 'first')
      await client.until('stage1_start')
      for (const path of ['message', 'message/stream']) {
        const second = await api.call('POST', `/api/conversations/${id}/${path}`, { content: 'second' })
        expect(refusal(second)).toMatchObject({ status: 409, code: 'conflict' })
        expectErrorShape(second)
      }
      hold.open()
      await client.ended
      expect((await read(id)).messages).toHaveLength(2)
    })

    test('a failure on the way is an event that says what happened, and the same question goes on', async () => {
      const id = await newConversation()
      follow(({ stage }) => (stage === 'stage3' ? { status: 500, error: 'of the inside' } : undefined))
      const client = await askRaw(api, id, 'Which rivers?')
      await client.ended
      const events = chunksOf(client.text()).chunks.map(eventOf)
      expect(events.map(({ type }) => type)).toEqual([...ALL.slice(0, 5), 'error'])
      expect(events[5].message).toMatch(/^no model answered \(alpha: it answered 500/)
      expect(client.text()).not.toContain('of the inside')
      follow()
      const again = await api.call('POST', `/api/conversations/${id}/message`, { content: 'Which rivers?' })
      expect(again.body.stage1).toEqual(events[1].data)
      expect(countAsked(server)).toEqual({ 'alpha stage3': 1, 'namer title': 1 })
      // all failing is 503 where nothing was told
      follow(() => ({ fault: 'cut' }))
      const none = await api.call('POST', `/api/conversations/${id}/message`, { content: 'And?' })
      expect(refusal(none)).toMatchObject({ status: 503, code: 'unavailable' })
    })

    test('who may ask no more is told when to come back', async () => {
      const id = await newConversation()
      const by = { userId: 'tests', via: 'library' } as const
      await api.opened.tb.usage.set(by, SCOPE.userId, { dailyLimit: 0 })
      for (const path of ['message', 'message/stream']) {
        const answer = await api.call('POST', `/api/conversations/${id}/${path}`, { content: 'q' })
        expect(refusal(answer)).toMatchObject({ status: 429, code: 'quota_exceeded' })
        expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0)
      }
      await api.opened.tb.usage.set(by, SCOPE.userId, { dailyLimit: null })
      expect((await read(id)).messages).toEqual([])
    })

    test('a user has so many streams and no more', async () => {
      const hold = gate()
      follow(async () => {
        await hold.opened
        return undefined
      })
      const clients = []
      for (let i = 0; i < 3; i++) {
        const client = await askRaw(api, await newConversation(), 'q')
        await client.until('stage1_start')
        clients.push(client)
      }
      const more = await api.call('POST', `/api/conversations/${await newConversation()}/message/stream`, {
        content: 'q',
      })
      expect(refusal(more)).toMatchObject({ status: 429, code: 'rate_limited' })
      hold.open()
      await Promise.all(clients.map(({ ended }) => ended))
    })

    test('nothing of keys and contents is in the log', () => {
      expect(JSON.stringify([api.logged, api.opened.logged])).not.toMatch(/sk-of-the|Which rivers|concludes/)
    })
  },
  OPTIONS,
)

describeApi('the council without a key', (api) => {
  test('says what to set, and keeps nothing', async () => {
    const { id } = (await api.call('POST', '/api/conversations')).body
    for (const path of ['message', 'message/stream']) {
      const answer = await api.call('POST', `/api/conversations/${id}/${path}`, { content: 'q' })
      expect(refusal(answer)).toMatchObject({ status: 503, code: 'unavailable' })
      expect(refusal(answer).message).toContain('OPENROUTER_API_KEY')
    }
    expect((await api.call('GET', `/api/conversations/${id}`)).body.messages).toEqual([])
    expect((await api.opened.tb.usage.read(SCOPE)).totalQueries).toBe(0)
  })
})

describe('a stream of events', () => {
  test('says that it is alive, in pieces of their own, until it ends', async () => {
    const { readable, send, end } = createEventStream(20)
    const pieces: string[] = []
    readable.on('data', (piece) => pieces.push(piece))
    await expect.poll(() => pieces.length).toBeGreaterThan(2)
    send({ type: 'complete' })
    end()
    send({ type: 'late' })
    await new Promise((resolve) => readable.once('close', resolve))
    const count = pieces.length
    await new Promise((resolve) => setTimeout(resolve, 60))
    expect(pieces.length).toBe(count)
    expect(new Set(pieces)).toEqual(new Set([': keep-alive\n\n', 'data: {"type":"complete"}\n\n']))
  })
})
