import { expect, test } from 'vitest'
import { describeApi } from '../../test/http.ts'

describeApi('/api/search', (api) => {
  const say = async (content: unknown, body = {}) => {
    const id = await api.newThread({ title: '<b>Trip</b>' })
    await api.call('POST', `/api/threads/${id}/messages`, { role: 'user', content, message_id: 'm', ...body })
    return id
  }
  const search = (query: string) => api.call('GET', `/api/search?${query}`)

  test('gives hits with their threads', async () => {
    const id = await say('a <i>vegetarian</i> restaurant')
    const { status, body } = await search('q=vegetarian')
    expect(status).toBe(200)
    expect(body).toEqual({
      items: [
        {
          type: 'message',
          score: expect.any(Number),
          snippet: expect.stringContaining('<mark>vegetarian</mark>&lt;/i&gt;'),
          thread: { id, title: '<b>Trip</b>', kind: 'chat', archived_at: null },
          message: {
            ...{ id: expect.any(String), message_id: 'm', seq: 1, role: 'user', tool_name: null },
            created_at: expect.stringMatching(/Z$/),
          },
          analysis: null,
        },
      ],
      ...{ next_cursor: null, mode: 'text', method: 'words', degraded: null },
    })
  })

  test('filters and pages', async () => {
    const ids = [await say('one hotel'), await say('two hotels', { role: 'assistant' }), await say('a hotel')]
    await api.call('POST', `/api/threads/${ids[0]}/archive`)
    const found = async (query: string) => {
      const { body } = await search(`q=hotel${query}`)
      return body.items.map(({ thread }: { thread: { id: string } }) => ids.indexOf(thread.id)).sort()
    }
    expect(await found('')).toEqual([1, 2])
    expect(await found('&include_archived=true')).toEqual([0, 1, 2])
    expect(await found('&role=assistant')).toEqual([1])
    expect(await found(`&thread_id=${ids[2]}`)).toEqual([2])
    expect(await found('&kind=council')).toEqual([])
    expect(await found('&since=2099-01-01T00:00:00Z')).toEqual([])
    const { body } = await search('q=hotel&limit=1')
    const next = await search(`q=hotel&limit=1&cursor=${body.next_cursor}`)
    expect([...body.items, ...next.body.items].map(({ message }) => message.seq)).toEqual([1, 1])
    expect(next.body.next_cursor).toBeNull()
    expect((await search(`q=other&cursor=${body.next_cursor}`)).status).toBe(400)
  })

  test.each([
    ['no query', ''],
    ['an empty one', 'q='],
    ['spaces', 'q=%20%20'],
    ['100 kB', `q=${'x'.repeat(100_000)}`],
    ['a mode that there is not', 'q=x&mode=magic'],
    ['too many', 'q=x&limit=101'],
    ['an odd time', 'q=x&since=yesterday'],
    ['an odd cursor', 'q=x&cursor=%00'],
    ['an unknown field', 'q=x&page=2'],
  ])('%s is bad input', async (_, query) => {
    const { status, body } = await search(query)
    expect([status, body.error?.code]).toEqual([400, 'invalid_input'])
  })

  test.each([
    "'; drop table messages; --",
    '"unbalanced',
    'the',
    'to be or not to be',
    '\u0000',
    '-hotel',
    '!!!',
    'مرحبا',
    '\u202e',
  ])('%j has an answer', async (q) => {
    expect((await search(`q=${encodeURIComponent(q)}`)).status).toBe(200)
  })

  test('by meaning it says what is missing', async () => {
    const { status, body } = await search('q=x&mode=semantic')
    expect([status, body.error.code, body.error.message]).toEqual([
      ...[503, 'unavailable'],
      expect.stringContaining('EMBEDDING_MODEL'),
    ])
    const hybrid = await search('q=hotel&mode=hybrid')
    expect(hybrid.body).toMatchObject({ mode: 'text', degraded: expect.stringContaining('EMBEDDING_MODEL') })
  })
})
