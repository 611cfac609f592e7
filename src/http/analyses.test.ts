import { describe, expect, test } from 'vitest'
import { type Answer, describeApi, INSTANT, MISSING_ID, refusal, UUID } from '../../test/http.ts'

describeApi('sessions and analyses over HTTP', (api) => {
  const newSession = async () => (await api.call('POST', '/api/sessions')).body.id as string
  const pathOf = (id: string) => `/api/sessions/${id}/analysis`
  const put = (id: string, body: unknown, headers = {}) => api.call('PUT', pathOf(id), body, headers)
  const patch = (id: string, body: unknown, headers = {}) => api.call('PATCH', pathOf(id), body, headers)
  const seen = ({ status, body, headers }: Answer) => [status, body?.version, headers.etag]
  const FULL = {
    vulnerabilities: ['slept badly', { text: 'skipped lunch', since_noon: true }],
    chain_links: [{ kind: 'event', text: 'no answer', at: '2026-01-31T12:00:00Z' }],
    problem_behavior: 'drank',
    prompting_event: 'an unanswered message',
    consequences: 'missed work',
    solutions: [{ text: 'cold water' }],
    summary: 'a hard evening',
  }

  describe('sessions', () => {
    test('one is begun, read, listed and ended', async () => {
      const made = await api.call('POST', '/api/sessions', { title: 'Evening', meta: { a_b: { cD: 1 } } })
      const { id } = made.body
      expect([made.status, made.headers.location]).toEqual([201, `/api/sessions/${id}`])
      expect(made.body).toEqual({
        id: expect.stringMatching(UUID),
        user_id: 'local',
        type: 'chain_analysis',
        title: 'Evening',
        meta: { a_b: { cD: 1 } },
        last_seq: 0,
        started_at: expect.stringMatching(INSTANT),
        ended_at: null,
        archived_at: null,
        analysis_version: null,
      })
      const messages = await api.call('POST', `/api/threads/${id}/messages`, { role: 'user', content: 'x' })
      expect(messages.status).toBe(201)
      await put(id, FULL)
      const now = { ...made.body, last_seq: 1, analysis_version: 1 }
      expect((await api.call('GET', `/api/sessions/${id}`)).body).toEqual(now)
      const open = await api.call('GET', '/api/sessions?ended=false&limit=100')
      expect(open.body.items).toContainEqual(now)
      const ended = await api.call('POST', `/api/sessions/${id}/end`)
      expect([ended.status, ended.body]).toEqual([200, { ...now, ended_at: expect.stringMatching(INSTANT) }])
      expect((await api.call('GET', '/api/sessions?ended=true')).body.items).toContainEqual(ended.body)
      expect((await api.call('GET', `/api/threads/${id}`)).body.ended_at).toBe(ended.body.ended_at)
    })

    test('an id of the client makes it once', async () => {
      const body = { id: crypto.randomUUID(), title: 'once' }
      const [first, again] = [
        await api.call('POST', '/api/sessions', body),
        await api.call('POST', '/api/sessions', body),
      ]
      expect([first.status, again.status, again.body]).toEqual([201, 200, first.body])
      expect((await api.call('POST', '/api/sessions', { ...body, title: 'x' })).status).toBe(409)
    })

    test('what is no session is not found', async () => {
      const chat = await api.newThread()
      for (const id of [chat, MISSING_ID])
        for (const [method, path] of [
          ['GET', ''],
          ['POST', '/end'],
          ['GET', '/analysis'],
          ['GET', '/analysis/versions'],
          ['GET', '/analysis/versions/1'],
        ] as const)
          expect((await api.call(method, `/api/sessions/${id}${path}`)).status, path).toBe(404)
      expect((await put(chat, FULL)).body.error.message).toContain('is of kind chat')
    })

    test.each(['ended=maybe', 'kind=chat', 'limit=1000', 'cursor=x'])(
      'GET /api/sessions?%s is refused',
      async (query) => {
        expect((await api.call('GET', `/api/sessions?${query}`)).status).toBe(400)
      },
    )
  })

  test('an analysis is made, read, replaced, changed and deleted', async () => {
    const id = await newSession()
    expect(refusal(await api.call('GET', pathOf(id)))).toEqual({
      status: 404,
      code: 'not_found',
      message: `session ${id} has no analysis`,
    })
    const made = await put(id, FULL)
    expect(seen(made)).toEqual([201, 1, '"1"'])
    expect(made.body).toEqual({
      session_id: id,
      version: 1,
      ...FULL,
      created_at: expect.stringMatching(INSTANT),
      updated_at: made.body.created_at,
    })
    const read = await api.call('GET', pathOf(id))
    expect([seen(read), read.body]).toEqual([[200, 1, '"1"'], made.body])
    expect(read.headers['cache-control']).toBe('no-store')

    const replaced = await put(id, { summary: 'short' }, { 'if-match': '"1"' })
    expect(seen(replaced)).toEqual([200, 2, '"2"'])
    expect(replaced.body).toMatchObject({ chain_links: [], problem_behavior: null, summary: 'short' })
    const changed = await patch(id, { problem_behavior: 'drank', summary: null }, { 'if-match': '"2"' })
    expect(seen(changed)).toEqual([200, 3, '"3"'])
    expect(changed.body).toMatchObject({ problem_behavior: 'drank', summary: null })

    const versions = await api.call('GET', `${pathOf(id)}/versions?limit=2`)
    expect(versions.body.items).toEqual([
      { version: 3, written_at: changed.body.updated_at, replaced_at: null },
      { version: 2, written_at: replaced.body.updated_at, replaced_at: expect.stringMatching(INSTANT) },
    ])
    const rest = await api.call('GET', `${pathOf(id)}/versions?cursor=${versions.body.next_cursor}`)
    expect([rest.body.items[0].version, rest.body.next_cursor]).toEqual([1, null])
    const old = await api.call('GET', `${pathOf(id)}/versions/1`)
    expect(old.body).toMatchObject({ session_id: id, version: 1, analysis: FULL })
    const restored = await put(id, old.body.analysis, { 'if-match': '*' })
    expect([seen(restored), restored.body]).toEqual([[200, 4, '"4"'], expect.objectContaining(FULL)])

    const removed = await api.call('DELETE', pathOf(id), undefined, { 'if-match': '"4"' })
    expect([removed.status, removed.text]).toEqual([204, ''])
    expect((await api.call('DELETE', pathOf(id))).status).toBe(204)
    expect((await api.call('GET', `${pathOf(id)}/versions`)).body).toEqual({ items: [], next_cursor: null })
    expect((await put(id, FULL, { 'if-match': '"4"' })).status).toBe(409)
    expect(seen(await put(id, FULL, { 'if-none-match': '*' }))).toEqual([201, 5, '"5"'])
  })

  test('a write without the version, or with an old one, is a conflict that tells which there is', async () => {
    const id = await newSession()
    await put(id, { summary: 'a' })
    await put(id, { summary: 'b' }, { 'if-match': '"1"' })
    const details = { session_id: id, version: 2 }
    for (const headers of [{}, { 'if-match': '"1"' }, { 'if-match': '"3"' }, { 'if-none-match': '*' }])
      for (const write of [put, patch]) {
        const answer = await write(id, { summary: 'c' }, headers)
        expect([answer.status, answer.body.error]).toEqual([
          409,
          expect.objectContaining({ code: 'conflict', details }),
        ])
      }
    for (const headers of [{ 'if-match': '"1"' }, { 'if-none-match': '*' }] as Record<string, string>[])
      expect((await api.call('DELETE', pathOf(id), undefined, headers)).status).toBe(409)
    expect((await api.call('GET', pathOf(id))).body).toMatchObject(details)
    // as proxies that compress make it, and as people write it
    for (const [n, tag] of ['W/"2"', '3', ' "4" ', '*'].entries())
      expect(seen(await put(id, { summary: tag }, { 'if-match': tag }))).toEqual([200, n + 3, `"${n + 3}"`])
  })

  test('who has the version is told so without it', async () => {
    const id = await newSession()
    await put(id, FULL)
    for (const tags of ['"1"', 'W/"1"', '"7", "1"', '*']) {
      const answer = await api.call('GET', pathOf(id), undefined, { 'if-none-match': tags })
      expect([answer.status, answer.text, answer.headers.etag]).toEqual([304, '', '"1"'])
    }
    const other = await api.call('GET', pathOf(id), undefined, { 'if-none-match': '"2"' })
    expect(other.status).toBe(200)
  })

  test.each([
    [{ 'if-match': '"x"' }],
    [{ 'if-match': '1.5' }],
    [{ 'if-match': '"1", "2"' }],
    [{ 'if-match': '"-1"' }],
    [{ 'if-match': '"0"' }],
    [{ 'if-match': '"99999999999999999999"' }],
    [{ 'if-match': '' }],
    [{ 'if-match': '*', 'if-none-match': '*' }],
    [{ 'if-none-match': '"1"' }],
  ])('%j on a write is refused', async (headers) => {
    const id = await newSession()
    for (const answer of [
      await put(id, FULL, headers),
      await patch(id, FULL, headers),
      await api.call('DELETE', pathOf(id), undefined, headers),
    ])
      expect(refusal(answer)).toMatchObject({ status: 400, code: 'invalid_input' })
    expect((await api.call('GET', pathOf(id))).status).toBe(404)
  })

  test.each([
    ['', 'body'],
    ['{}', 'body'],
    ['[]', 'body must be object'],
    ['{"summary": 1}', 'body.summary'],
    ['{"chainLinks": []}', 'body has a field that is not known: chainLinks'],
    ['{"version": 1, "summary": "x"}', 'body has a field that is not known: version'],
    ['{"chain_links": [{"kind": "event"}]}', 'body.chain_links.0 lacks a required field: text'],
    ['{"chain_links": [{"kind": "mood", "text": "x"}]}', 'body.chain_links.0.kind must be one of: event,'],
    [
      '{"chain_links": [{"kind": "event", "text": "x", "at": "x"}]}',
      'body.chain_links.0.at must be an RFC 3339',
    ],
    [
      '{"chain_links": [{"kind": "event", "text": "x", "at": "2026-13-01T00:00:00Z"}]}',
      'chain_links.0.at is not a date that exists',
    ],
    ['{"solutions": [7]}', 'body.solutions.0 must be string or object'],
    ['{"solutions": [{"skill": "x"}]}', 'body.solutions.0 lacks a required field: text'],
    ['{"summary": "x"', 'the body is not JSON'],
  ])('the body %s is refused', async (body, message) => {
    const id = await newSession()
    const answer = await put(id, body)
    expect(refusal(answer)).toMatchObject({ status: 400, code: 'invalid_input' })
    expect(answer.body.error.message).toContain(message)
    expect((await api.call('GET', pathOf(id))).status).toBe(404)
  })

  test('NUL, halves of surrogate pairs and long numbers come back as they were sent', async () => {
    const id = await newSession()
    const body =
      '{"summary":"a\\u0000b\\ud800","solutions":[{"text":"x\\udfff","n":9007199254740993,"\\u0000":1e400}]}'
    expect((await put(id, body)).status).toBe(201)
    const { text } = await api.call('GET', pathOf(id))
    expect(text).toContain('"summary":"a\\u0000b\\ud800"')
    expect(text).toMatch(/"n":9007199254740993/)
    expect(text).toMatch(/"\\u0000":1e\+?400/i)
    expect(text).toContain('"text":"x\\udfff"')
    // nothing new
    expect((await put(id, body)).body.version).toBe(1)
  })

  test.each(['0', 'x', '1.5', '-1', '99999999999'])('version %s is none', async (version) => {
    const id = await newSession()
    expect((await api.call('GET', `${pathOf(id)}/versions/${version}`)).status).toBe(400)
  })
})
