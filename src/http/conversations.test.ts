import { expect, test } from 'vitest'
import { describeApi, type Json, MISSING_ID, refusal } from '../../test/http.ts'

const SCOPE = { userId: 'local' }
const ANSWER = {
  stage1: [{ model: 'a', response: 'The Glomma, by length.' }],
  stage2: [],
  stage3: { model: 'a', response: 'The Glomma.' },
}

describeApi('conversations over HTTP', (api) => {
  const post = (body?: unknown) => api.call('POST', '/api/conversations', body)
  const get = (path = '') => api.call('GET', `/api/conversations${path}`)

  test('are made as front ends make them: without a body, with an empty one, with an id', async () => {
    for (const body of [undefined, {}, '']) {
      const made = await api.call('POST', '/api/conversations', body, { 'content-type': 'application/json' })
      expect(made).toMatchObject({ status: 200, body: { title: 'New Conversation', messages: [] } })
      expect(Object.keys(made.body)).toEqual(['id', 'created_at', 'title', 'messages'])
      expect((await get(`/${made.body.id}`)).body).toEqual(made.body)
    }
    const named = await post({ id: 'My döcument 1' })
    expect(named.body.id).toBe('My döcument 1')
    expect((await get(`/${encodeURIComponent('My döcument 1')}`)).body).toEqual(named.body)
    expect(refusal(await post({ id: 'My döcument 1' }))).toMatchObject({ status: 409 })
    for (const id of ['../x', '.x', '', 'a/b', 5]) expect((await post({ id })).status).toBe(400)
    expect((await post({ title: 'x' })).status).toBe(400)
  })

  test('are listed as a bare array, newest first, all or page by page', async () => {
    const made: Json[] = []
    for (let i = 0; i < 5; i++) made.push((await post()).body)
    const all = (await get()).body
    expect(Object.keys(all[0])).toEqual(['id', 'created_at', 'title', 'message_count'])
    const ids = all.map(({ id }: Json) => id)
    for (const { id } of made) expect(ids).toContain(id)
    const paged: Json[] = []
    for (let page: Json[] = (await get('?limit=2')).body; page.length > 0; ) {
      paged.push(...page)
      const { id, created_at } = page.at(-1)
      const query = new URLSearchParams({ limit: '2', after: id, after_created_at: created_at })
      page = (await get(`?${query}`)).body
    }
    expect(paged).toEqual(all)
    for (const query of ['limit=0', 'limit=x', 'after=x', 'after_created_at=x', 'limit=1&more=1'])
      expect((await get(`?${query}`)).status).toBe(400)
  })

  test('are renamed, and deleted once and for all', async () => {
    const { id } = (await post()).body
    const renamed = await api.call('PATCH', `/api/conversations/${id}`, { title: 'Rivers "of" Norway' })
    expect(renamed).toMatchObject({ status: 200, body: { id, title: 'Rivers "of" Norway', messages: [] } })
    for (const body of [{}, { title: '' }, { title: 'x'.repeat(501) }, { title: null }])
      expect((await api.call('PATCH', `/api/conversations/${id}`, body)).status).toBe(400)
    const missing = await api.call('PATCH', `/api/conversations/${MISSING_ID}`, { title: 'x' })
    expect(refusal(missing)).toMatchObject({ status: 404 })
    for (let i = 0; i < 2; i++)
      expect((await api.call('DELETE', `/api/conversations/${id}`)).status).toBe(204)
    expect((await get(`/${id}`)).status).toBe(404)
  })

  test.each(['..%2F..%2Fetc%2Fpasswd', '.hidden', 'a%00b', `${'x'.repeat(201)}`])(
    'the id %s is refused',
    async (id) => {
      for (const [method, path, body] of [
        ['GET', '', undefined],
        ['PATCH', '', { title: 'x' }],
        ['DELETE', '', undefined],
        ['GET', '/export/json', undefined],
        ['POST', '/message', { content: 'x' }],
      ] as const) {
        const answer = await api.call(method, `/api/conversations/${id}${path}`, body)
        expect(refusal(answer), `${method} ${path}`).toMatchObject({ status: 400, code: 'invalid_input' })
      }
    },
  )

  test('are found by their texts', async () => {
    const { id } = (await post()).body
    const { conversations } = api.opened.tb
    await conversations.addUserMessage(SCOPE, id, 'Which river is the longest?')
    await conversations.addAssistantMessage(SCOPE, id, ANSWER)
    const found = await get('/search?q=gLOMMA')
    expect(found.body.map((hit: Json) => hit.id)).toEqual([id])
    expect(found.body[0]).toMatchObject({
      message_count: 2,
      matches: [{ position: 1, role: 'assistant', snippet: expect.stringContaining('Glomma') }],
    })
    expect((await get('/search?q=nowhere')).body).toEqual([])
    for (const query of ['', '?q=', '?q=x&limit=201', '?q=x&more=1'])
      expect((await get(`/search${query}`)).status).toBe(400)
  })

  test('are downloaded as a file', async () => {
    const { id } = (await post({ id: 'Flüsse' })).body
    const { conversations } = api.opened.tb
    await conversations.addUserMessage(SCOPE, id, 'Which river?')
    await conversations.addAssistantMessage(SCOPE, id, ANSWER)
    const path = `/${encodeURIComponent(id)}/export`
    const json = await get(`${path}/json`)
    expect(json).toMatchObject({ status: 200, body: (await get(`/${encodeURIComponent(id)}`)).body })
    expect(json.headers['content-type']).toBe('application/json; charset=utf-8')
    expect(json.headers['content-disposition']).toMatch(
      /^attachment; filename="conversation-Fl\?sse\.json"; filename\*=UTF-8''/,
    )
    const markdown = await get(`${path}/markdown`)
    expect(markdown.headers['content-type']).toBe('text/markdown; charset=utf-8')
    expect(markdown.text).toContain('The Glomma.')
    expect((await get(`${path}/html`)).status).toBe(400)
    expect((await get(`/${MISSING_ID}/export/json`)).status).toBe(404)
  })
})
