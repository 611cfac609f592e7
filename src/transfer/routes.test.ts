import { once } from 'node:events'
import { type ClientRequest, get, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { CompiledQuery } from 'kysely'
import { beforeAll, expect, test } from 'vitest'
import { describeApi, MISSING_ID, refusal } from '../../test/http.ts'

const LOCAL = { userId: 'local' }
const STREAMS = 3

describeApi(
  'GET /api/export',
  (api) => {
    let port = 0
    let small = ''
    let big = ''
    beforeAll(async () => {
      await api.app.listen({ host: '127.0.0.1', port: 0 })
      port = (api.app.server.address() as AddressInfo).port
      const { tb } = api.opened
      small = (await tb.threads.create(LOCAL, { title: 'Small' })).id
      await tb.messages.append(LOCAL, small, [
        { role: 'user', content: 'Hällo' },
        { role: 'assistant', content: 'hi' },
      ])
      // more than what connections and pipes hold between the store and a client that does not read
      big = (await tb.threads.create(LOCAL, { title: 'Big' })).id
      const content = 'x'.repeat(100_000)
      for (let i = 0; i < 10; i++)
        await tb.messages.append(
          LOCAL,
          big,
          Array.from({ length: 30 }, () => ({ role: 'user' as const, content })),
        )
    })

    const open = async (url: string): Promise<{ request: ClientRequest; answer: IncomingMessage }> => {
      const request = get({ host: '127.0.0.1', port, path: url, agent: false })
      request.on('error', () => {})
      const [answer] = (await once(request, 'response')) as [IncomingMessage]
      answer.on('error', () => {})
      return { request, answer }
    }
    const openStreams = async () => {
      const { text } = await api.call('GET', '/metrics')
      return Number(/^threadbase_streams_open (\d+)$/m.exec(text)?.[1])
    }

    test('streams what the library exports, as a file', async () => {
      for (const [format, type, extension] of [
        ['jsonl', 'application/x-ndjson; charset=utf-8', 'jsonl'],
        ['markdown', 'text/markdown; charset=utf-8', 'md'],
      ] as const) {
        const answer = await api.call('GET', `/api/export?format=${format}&thread_id=${small}`)
        expect(answer.status).toBe(200)
        expect(answer.headers['content-type']).toBe(type)
        expect(answer.headers['content-disposition']).toBe(
          `attachment; filename="thread-${small}.${extension}"`,
        )
        expect(answer.headers['cache-control']).toBe('no-store')
        let expected = ''
        for await (const piece of api.opened.tb.transfer.export(LOCAL, { threadId: small, format }))
          expected += piece
        expect(answer.text).toBe(expected)
        expect(expected).toContain('Hällo')
      }
      const all = await api.call('GET', '/api/export')
      expect(all.headers['content-disposition']).toBe('attachment; filename="threads.jsonl"')
      expect(
        all.text
          .split('\n')
          .slice(0, -1)
          .map((line) => JSON.parse(line).messages.length),
      ).toEqual([2, 300])
      expect(await openStreams()).toBe(0)
    })

    test('what cannot be exported is refused before anything is sent, and holds no stream', async () => {
      for (const [query, status, code] of [
        [`thread_id=${MISSING_ID}`, 404, 'not_found'],
        ['thread_id=x', 400, 'invalid_input'],
        ['format=pdf', 400, 'invalid_input'],
        ['limit=5', 400, 'invalid_input'],
      ] as const) {
        const answer = await api.call('GET', `/api/export?${query}`)
        expect(refusal(answer), query).toMatchObject({ status, code })
        expect(answer.headers).not.toHaveProperty('content-disposition')
      }
      expect(await openStreams()).toBe(0)
    })

    test('a user has so many streams at most; one that ends or goes away makes room', async () => {
      const url = `/api/export?thread_id=${big}`
      const streams = await Promise.all(Array.from({ length: STREAMS }, () => open(url)))
      // nobody reads: the answers wait, however long
      await delay(1_500)
      expect(await openStreams()).toBe(STREAMS)
      const refused = await api.call('GET', url)
      expect(refusal(refused)).toMatchObject({ status: 429, code: 'rate_limited' })
      expect(refused.headers['retry-after']).toMatch(/^\d+$/)
      expect(refused.body.error.details).toEqual({ limit: STREAMS, retry_after_s: 1 })
      // other calls are not streams
      expect((await api.call('GET', '/api/threads')).status).toBe(200)

      streams[0]?.request.destroy()
      await expect.poll(openStreams).toBe(STREAMS - 1)
      const answer = streams[1]?.answer as IncomingMessage
      let bytes = 0
      for await (const chunk of answer) bytes += (chunk as Buffer).length
      expect(answer.complete).toBe(true)
      expect(bytes).toBeGreaterThan(300 * 100_000)
      await expect.poll(openStreams).toBe(STREAMS - 2)
      expect((await api.call('GET', url)).status).toBe(200)
      streams[2]?.request.destroy()
      await expect.poll(openStreams).toBe(0)
    })

    test('a client that does not read holds up the store, not the memory', async () => {
      const { transfer } = api.opened.tb
      const { export: exportAll } = transfer
      let pieces = 0
      transfer.export = async function* (...args) {
        for await (const piece of exportAll.apply(transfer, args)) {
          pieces++
          yield piece
        }
      }
      try {
        const { request } = await open(`/api/export?thread_id=${big}`)
        await delay(1_000)
        // what is on the way fits into the buffers of the connection
        const read = pieces
        expect(read).toBeLessThan(250)
        await delay(500)
        expect(pieces).toBe(read)
        request.destroy()
        await expect.poll(openStreams).toBe(0)
        expect(pieces).toBeLessThan(read + 3)
      } finally {
        transfer.export = exportAll
      }
    })

    test('an error in the middle breaks the connection off', async () => {
      const { request, answer } = await open(`/api/export?thread_id=${big}`)
      await once(answer, 'readable')
      const { db, schema } = api.opened.database
      const rename = (from: string, to: string) =>
        db.executeQuery(CompiledQuery.raw(`alter table ${schema}.${from} rename to ${to}`))
      await rename('messages', 'messages_away')
      try {
        const ended = new Promise<void>((resolve) => answer.once('close', () => resolve()))
        answer.resume()
        await ended
      } finally {
        await rename('messages_away', 'messages')
      }
      expect(answer.complete).toBe(false)
      request.destroy()
      await expect.poll(openStreams).toBe(0)
      expect((await api.call('GET', `/api/export?thread_id=${small}`)).status).toBe(200)
    })
  },
  { limits: { streamsPerUser: STREAMS, handlerTimeoutMs: 1_000 } },
)
