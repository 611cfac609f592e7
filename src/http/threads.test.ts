import { expect, test } from 'vitest'
import { describeApi, INSTANT, MISSING_ID, refusal, UUID } from '../../test/http.ts'

describeApi('threads over HTTP', (api) => {
  test('POST makes a thread with defaults: 201, its place, all fields', async () => {
    const made = await api.call('POST', '/api/threads')
    expect(made.status).toBe(201)
    expect(made.headers.location).toBe(`/api/threads/${made.body.id}`)
    expect(made.body).toEqual({
      id: expect.stringMatching(UUID),
      user_id: 'local',
      title: null,
      kind: 'chat',
      meta: {},
      last_seq: 0,
      forked_from: null,
      created_at: expect.stringMatching(INSTANT),
      updated_at: expect.stringMatching(INSTANT),
      archived_at: null,
      ended_at: null,
    })
    const read = await api.call('GET', made.headers.location as string)
    expect(read).toMatchObject({ status: 200, body: made.body })
  })

  test('POST keeps what it is given', async () => {
    const given = {
      title: 'Trip',
      kind: 'council',
      meta: { tags: ['a'], deep: { camelCase: 1, snake_case: 2 } },
    }
    const { status, body } = await api.call('POST', '/api/threads', given)
    expect(status).toBe(201)
    expect(body).toMatchObject(given)
  })

  test('POST with an id of the client: 201, then 200 with the thread as it is now, 409 with another body', async () => {
    const id = '0192f0c1-2f6b-7cc0-8d2e-5f0a6d2f4b11'
    const body = { id, title: 'Mine', meta: { a: 1, b: 2 } }
    const first = await api.call('POST', '/api/threads', body)
    expect(first.status).toBe(201)
    expect(first.body.id).toBe(id)
    await api.call('PATCH', `/api/threads/${id}`, { title: 'Changed' })
    const again = await api.call('POST', '/api/threads', {
      title: 'Mine',
      meta: { b: 2, a: 1 },
      id: id.toUpperCase(),
    })
    expect(again.status).toBe(200)
    expect(again.headers.location).toBe(`/api/threads/${id}`)
    expect(again.body).toMatchObject({ id, title: 'Changed', created_at: first.body.created_at })
    const other = await api.call('POST', '/api/threads', { ...body, title: 'Other' })
    expect(refusal(other)).toMatchObject({ status: 409, code: 'conflict' })
    expect(other.body.error.details).toEqual({ thread_id: id })
  })

  test('two that make the same id at once make one thread', async () => {
    const body = { id: '0192f0c1-2f6b-7cc0-8d2e-5f0a6d2f4b12', title: 'Race' }
    const answers = await Promise.all(Array.from({ length: 8 }, () => api.call('POST', '/api/threads', body)))
    const statuses = answers.map(({ status }) => status).sort()
    expect(statuses).toEqual([200, 200, 200, 200, 200, 200, 200, 201])
    expect(new Set(answers.map((answer) => JSON.stringify(answer.body))).size).toBe(1)
  })

  test('GET lists newest update first, by keyset, each thread once', async () => {
    const kind = 'flow'
    const ids: string[] = []
    for (let i = 0; i < 7; i++) ids.push(await api.newThread({ kind, title: `Paging ${i}` }))
    await api.call('POST', `/api/threads/${ids[2]}/messages`, { role: 'user', content: 'back to the top' })
    const expected = [ids[2], ids[6], ids[5], ids[4], ids[3], ids[1], ids[0]]
    const seen: string[] = []
    let cursor: string | null = ''
    for (let pages = 0; cursor !== null && pages < 10; pages++) {
      const query: string = cursor === '' ? '' : `&cursor=${encodeURIComponent(cursor)}`
      const { status, body } = await api.call('GET', `/api/threads?kind=${kind}&limit=3${query}`)
      expect(status).toBe(200)
      expect(Object.keys(body)).toEqual(['items', 'next_cursor'])
      expect(body.items.length).toBeLessThanOrEqual(3)
      seen.push(...body.items.map((item: { id: string }) => item.id))
      cursor = body.next_cursor
    }
    expect(seen).toEqual(expected)
  })

  test('GET filters by title in any case, kind, and archived', async () => {
    const id = await api.newThread({ title: 'Über 100% sûre_' })
    const list = async (query: string) => {
      const { body } = await api.call('GET', `/api/threads?${query}`)
      return body.items.map((item: { id: string }) => item.id)
    }
    expect(await list(`q=${encodeURIComponent('üBER 100%')}`)).toEqual([id])
    expect(await list(`q=${encodeURIComponent('sûre_')}`)).toEqual([id])
    expect(await list('q=sure%25')).toEqual([])
    expect(await list(`q=${encodeURIComponent('100%')}&kind=council`)).toEqual([])
    await api.call('POST', `/api/threads/${id}/archive`)
    expect(await list(`q=${encodeURIComponent('100%')}`)).toEqual([])
    for (const flag of ['true', '1'])
      expect(await list(`q=${encodeURIComponent('100%')}&include_archived=${flag}`)).toEqual([id])
    expect(await list(`q=${encodeURIComponent('100%')}&include_archived=false`)).toEqual([])
  })

  test('PATCH sets title and merges meta; PATCH /title sets the title alone', async () => {
    const id = await api.newThread({ title: 'a', meta: { keep: 1, drop: 2 } })
    const patched = await api.call('PATCH', `/api/threads/${id}`, { meta: { drop: null, add: { x: null } } })
    expect(patched).toMatchObject({ status: 200, body: { title: 'a', meta: { keep: 1, add: { x: null } } } })
    expect(patched.body.meta).not.toHaveProperty('drop')
    const titled = await api.call('PATCH', `/api/threads/${id}/title`, { title: 'b' })
    expect(titled).toMatchObject({ status: 200, body: { title: 'b', meta: { keep: 1 } } })
    expect((await api.call('PATCH', `/api/threads/${id}`, { title: null })).body.title).toBeNull()
    for (const body of [{}, undefined, { titel: 'x' }, { title: 1 }])
      expect(refusal(await api.call('PATCH', `/api/threads/${id}/title`, body))).toMatchObject({
        status: 400,
      })
    expect(refusal(await api.call('PATCH', `/api/threads/${id}`, {}))).toMatchObject({ status: 400 })
    expect(refusal(await api.call('PATCH', `/api/threads/${id}`, { kind: 'flow' })).message).toContain('kind')
  })

  test('archive, unarchive and end answer with the thread; again changes nothing', async () => {
    const id = await api.newThread()
    const archived = await api.call('POST', `/api/threads/${id}/archive`)
    expect(archived).toMatchObject({ status: 200, body: { id, archived_at: expect.stringMatching(INSTANT) } })
    const again = await api.call('POST', `/api/threads/${id}/archive`, {})
    expect(again.body.archived_at).toBe(archived.body.archived_at)
    expect((await api.call('POST', `/api/threads/${id}/unarchive`)).body.archived_at).toBeNull()
    const ended = await api.call('POST', `/api/threads/${id}/end`)
    expect(ended).toMatchObject({ status: 200, body: { ended_at: expect.stringMatching(INSTANT) } })
    expect((await api.call('POST', `/api/threads/${id}/end`)).body.ended_at).toBe(ended.body.ended_at)
    // a body where none is meant is a mistake, not something to ignore
    expect(refusal(await api.call('POST', `/api/threads/${id}/end`, { at: 'now' }))).toMatchObject({
      status: 400,
      message: 'body has a field that is not known: at',
    })
  })

  test('DELETE takes everything of the thread with it and is 204 again', async () => {
    const id = await api.newThread()
    const message = await api.call('POST', `/api/threads/${id}/messages`, { role: 'user', content: 'x' })
    await api.call('PUT', `/api/threads/${id}/config`, { model: 'm' })
    for (let i = 0; i < 2; i++) {
      const gone = await api.call('DELETE', `/api/threads/${id}`)
      expect([gone.status, gone.text]).toEqual([204, ''])
    }
    for (const path of ['', '/messages', `/messages/${message.body.id}`, '/config'])
      expect(refusal(await api.call('GET', `/api/threads/${id}${path}`))).toMatchObject({
        status: 404,
        code: 'not_found',
      })
  })

  test('fork copies the messages up to a seq, with meta and config: 201 and its place', async () => {
    const id = await api.newThread({ title: 'Origin', meta: { a: 1 } })
    const messages = [1, 2, 3].map((n) => ({ role: 'user', content: `m${n}`, message_id: `m${n}` }))
    await api.call('POST', `/api/threads/${id}/messages`, messages)
    await api.call('PUT', `/api/threads/${id}/config`, { model: 'm' })
    const fork = await api.call('POST', `/api/threads/${id}/fork`, { at: 2 })
    expect(fork.status).toBe(201)
    expect(fork.headers.location).toBe(`/api/threads/${fork.body.id}`)
    expect(fork.body).toMatchObject({ title: 'Origin', meta: { a: 1 }, forked_from: id, last_seq: 2 })
    const copied = await api.call('GET', `/api/threads/${fork.body.id}/messages`)
    expect(copied.body.items.map((item: { content: string }) => item.content)).toEqual(['m1', 'm2'])
    expect(copied.body.items[1].parent_id).toBe(copied.body.items[0].id)
    expect((await api.call('GET', `/api/threads/${fork.body.id}/config`)).body.model).toBe('m')
    const whole = await api.call('POST', `/api/threads/${id}/fork`)
    expect(whole).toMatchObject({ status: 201, body: { last_seq: 3 } })
    const empty = await api.call('POST', `/api/threads/${id}/fork`, { at: 0 })
    expect(empty).toMatchObject({ status: 201, body: { last_seq: 0 } })
    const late = await api.call('POST', `/api/threads/${id}/fork`, { at: 4 })
    expect(refusal(late)).toMatchObject({ status: 400, code: 'invalid_input' })
    expect(late.body.error.details).toEqual({ at: 4, last_seq: 3 })
    // the origin may go; the copy stays
    await api.call('DELETE', `/api/threads/${id}`)
    expect((await api.call('GET', `/api/threads/${fork.body.id}`)).body.forked_from).toBeNull()
    expect((await api.call('GET', `/api/threads/${fork.body.id}/messages`)).body.items).toHaveLength(2)
  })

  test('a thread that is not there is 404 everywhere, a bad id 400, and nothing is made', async () => {
    const calls: [string, string, unknown?][] = [
      ['GET', ''],
      ['PATCH', '', { title: 'x' }],
      ['PATCH', '/title', { title: 'x' }],
      ['POST', '/archive'],
      ['POST', '/unarchive'],
      ['POST', '/end'],
      ['POST', '/fork'],
      ['POST', '/messages', { role: 'user', content: 'x' }],
      ['GET', '/messages'],
      ['GET', '/config'],
      ['PUT', '/config', { model: 'x' }],
      ['PATCH', '/config', { model: 'x' }],
    ]
    for (const [method, path, body] of calls) {
      const missing = await api.call(method, `/api/threads/${MISSING_ID}${path}`, body)
      expect(refusal(missing), `${method} ${path}`).toEqual({
        status: 404,
        code: 'not_found',
        message: `thread ${MISSING_ID} does not exist`,
      })
      expect(missing.body.error.details).toEqual({ thread_id: MISSING_ID })
      const bad = await api.call(method, `/api/threads/not-a-uuid${path}`, body)
      expect(refusal(bad), `${method} ${path}`).toEqual({
        status: 400,
        code: 'invalid_input',
        message: 'path.id must be a UUID',
      })
    }
    expect((await api.call('GET', `/api/threads/${MISSING_ID}`)).status).toBe(404)
  })
})
