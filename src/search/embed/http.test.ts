import { describe, expect, test } from 'vitest'
import { newTestEmbedder } from '../../../test/embedders.ts'
import { describeApi } from '../../../test/http.ts'

const embedder = newTestEmbedder()

describeApi(
  'waiting for embeddings over HTTP',
  (api) => {
    const append = (thread: string, body: object, query = '?wait=embedding') =>
      api.call('POST', `/api/threads/${thread}/messages${query}`, body)
    const hello = { role: 'user', content: 'hello there' }

    test('an append that waits says that its messages are embedded', async () => {
      embedder.faults = {}
      const thread = await api.newThread()
      const one = await append(thread, hello)
      expect(one.status).toBe(201)
      expect(one.headers['x-embedding']).toBe('embedded')
      const many = await append(thread, [hello, { role: 'user', content: '' }])
      expect([many.status, many.headers['x-embedding'], many.body.items.length]).toEqual([201, 'embedded', 2])
      expect((await api.opened.tb.embeddings.status()).waiting).toBe(0)
    })

    test('one that does not wait says nothing', async () => {
      const plain = await append(await api.newThread(), hello, '')
      expect([plain.status, plain.headers['x-embedding']]).toEqual([201, undefined])
    })

    test('while the model does not answer it is pending, and stored', async () => {
      embedder.faults = { down: true }
      const thread = await api.newThread()
      const answer = await append(thread, hello)
      expect([answer.status, answer.headers['x-embedding']]).toEqual([201, 'pending'])
      const { body } = await api.call('GET', `/api/threads/${thread}/messages`)
      expect(body.items).toHaveLength(1)
      embedder.faults = {}
    })

    test('to wait for something else is refused', async () => {
      const answer = await append(await api.newThread(), hello, '?wait=x')
      expect([answer.status, answer.body.error.code]).toEqual([400, 'invalid_input'])
    })

    test('the backlog is among the metrics', async () => {
      const { text } = await api.call('GET', '/metrics')
      expect(text).toMatch(/^threadbase_embeddings_waiting \d+$/m)
    })
  },
  { embedder },
)

describe('without embeddings', () => {
  describeApi('waiting for them', (api) => {
    test('is over at once', async () => {
      const url = `/api/threads/${await api.newThread()}/messages?wait=embedding`
      const answer = await api.call('POST', url, { role: 'user', content: 'x' })
      expect([answer.status, answer.headers['x-embedding']]).toEqual([201, 'off'])
    })
  })
})
