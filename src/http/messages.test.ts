import fc from 'fast-check'
import { expect, test } from 'vitest'
import { anyJson, anyJsonObject } from '../../test/arbitraries.ts'
import { describeApi, INSTANT, type Json, MISSING_ID, refusal, UUID } from '../../test/http.ts'
import { parseWithExactKeys } from '../core/exact-keys.ts'

const contents = (body: Json) => body.items.map((item: Json) => item.content)

describeApi('messages over HTTP', (api) => {
  const append = (id: string, body: unknown) => api.call('POST', `/api/threads/${id}/messages`, body)
  const list = (id: string, query = '') => api.call('GET', `/api/threads/${id}/messages${query}`)

  test('POST appends one message: 201 and all fields, absent ones null', async () => {
    const id = await api.newThread()
    const { status, body } = await append(id, { role: 'user', content: 'Hello' })
    expect(status).toBe(201)
    expect(body).toEqual({
      id: expect.stringMatching(UUID),
      thread_id: id,
      seq: 1,
      message_id: null,
      parent_id: null,
      role: 'user',
      content: 'Hello',
      text: 'Hello',
      tool_name: null,
      tool_input: null,
      tool_output: null,
      meta: {},
      created_at: expect.stringMatching(INSTANT),
    })
    expect((await api.call('GET', `/api/threads/${id}/messages/${body.id}`)).body).toEqual(body)
    expect((await api.call('GET', `/api/threads/${id}`)).body).toMatchObject({ last_seq: 1 })
  })

  test('POST keeps every field; the answer is what is read later', async () => {
    const id = await api.newThread()
    const given = {
      message_id: 'm-1',
      role: 'tool',
      content: [{ type: 'text', text: 'It is 21 °C' }],
      tool_name: 'weather',
      tool_input: { camelCase: [1, { snake_case: null }] },
      tool_output: 'sun',
      meta: { tokens: 5 },
      created_at: '2024-02-29T12:00:00.123456+02:00',
    }
    const { body } = await append(id, given)
    expect(body).toMatchObject({ ...given, text: 'It is 21 °C', created_at: '2024-02-29T10:00:00.123Z' })
    expect((await api.call('GET', `/api/threads/${id}/messages/${body.id}`)).body).toEqual(body)
  })

  test('a known message_id: 200 with the stored one; other content: 409 and nothing stored', async () => {
    const id = await api.newThread()
    const first = await append(id, { message_id: 'm', role: 'user', content: { a: 1, b: 2 }, meta: { x: 1 } })
    const again = await append(id, { message_id: 'm', role: 'user', content: { b: 2, a: 1 }, meta: { x: 2 } })
    expect(again).toMatchObject({ status: 200, body: { id: first.body.id, seq: 1, meta: { x: 1 } } })
    for (const other of [
      { content: 'other' },
      { role: 'assistant' },
      { tool_name: 't' },
      { tool_input: 0 },
    ]) {
      const answer = await append(id, { message_id: 'm', role: 'user', content: { a: 1, b: 2 }, ...other })
      expect(refusal(answer), JSON.stringify(other)).toEqual({
        status: 409,
        code: 'conflict',
        message: 'message_id m is already used for other content',
      })
      expect(answer.body.error.details).toEqual({ message_id: 'm' })
    }
    expect((await list(id)).body.items).toHaveLength(1)
    expect((await append(await api.newThread(), { message_id: 'm', role: 'user', content: 1 })).status).toBe(
      201,
    )
  })

  test('16 appends of one message_id at once: one 201, the rest 200, one message', async () => {
    const id = await api.newThread()
    const message = { message_id: 'm', role: 'user', content: 'once' }
    const answers = await Promise.all(Array.from({ length: 16 }, () => append(id, message)))
    const statuses = answers.map(({ status }) => status).sort()
    expect(statuses).toEqual([...Array.from({ length: 15 }, () => 200), 201])
    expect(new Set(answers.map(({ body }) => body.id)).size).toBe(1)
    expect((await list(id)).body.items).toHaveLength(1)
  })

  test('an array is stored in order, whole or not at all, and answered as items', async () => {
    const id = await api.newThread()
    const batch = ['a', 'b', 'c'].map((name) => ({ message_id: name, role: 'user', content: name }))
    const made = await append(id, batch)
    expect(made.status).toBe(201)
    expect(Object.keys(made.body)).toEqual(['items'])
    expect(made.body.items.map((item: Json) => [item.seq, item.content])).toEqual([
      [1, 'a'],
      [2, 'b'],
      [3, 'c'],
    ])
    expect(made.body.items[2].parent_id).toBe(made.body.items[1].id)
    expect((await append(id, batch)).status).toBe(200)
    const mixed = await append(id, [...batch, { message_id: 'd', role: 'user', content: 'd' }])
    expect(mixed.status).toBe(201)
    expect(mixed.body.items.map((item: Json) => item.seq)).toEqual([1, 2, 3, 4])
    const refused = await append(id, [
      { message_id: 'e', role: 'user', content: 'e' },
      { message_id: 'a', role: 'user', content: 'not a' },
    ])
    expect(refused.status).toBe(409)
    expect((await list(id)).body.items).toHaveLength(4)
  })

  test('1,000 messages in one array are taken, 1,001 and none are refused', async () => {
    const id = await api.newThread()
    const many = (n: number) => Array.from({ length: n }, (_, i) => ({ role: 'user', content: i }))
    expect(refusal(await append(id, many(1_001)))).toMatchObject({ status: 400, code: 'invalid_input' })
    expect(refusal(await append(id, []))).toMatchObject({ status: 400, code: 'invalid_input' })
    const made = await append(id, many(1_000))
    expect(made.status).toBe(201)
    expect(made.body.items.map((item: Json) => item.seq)).toEqual(
      Array.from({ length: 1_000 }, (_, i) => i + 1),
    )
  })

  test('a mistake in an array says which message it is in', async () => {
    const id = await api.newThread()
    const good = { role: 'user', content: 1 }
    const wrong = await append(id, [good, { role: 'robot', content: 1 }])
    expect(refusal(wrong)).toEqual({
      status: 400,
      code: 'invalid_input',
      message: 'body.1.role must be one of: user, assistant, system, tool',
    })
    expect(wrong.body.error.details.problems).toEqual([
      { path: '1.role', message: 'must be one of: user, assistant, system, tool' },
    ])
    expect(refusal(await append(id, [good, { role: 'user' }])).message).toBe(
      'body.1 lacks a required field: content',
    )
    const unknown = await append(id, [{ ...good, messageId: 'camel' }])
    expect(refusal(unknown).message).toBe('body.0 has a field that is not known: messageId')
    for (const body of ['text', 5, true, null, [null], [[]], { ...good, created_at: 'yesterday' }])
      expect(refusal(await append(id, body)), JSON.stringify(body)).toMatchObject({ status: 400 })
    expect(refusal(await append(id, undefined))).toMatchObject({ status: 400 })
    expect((await list(id)).body.items).toEqual([])
  })

  test('a time that no calendar has is refused, not moved to another day', async () => {
    const id = await api.newThread()
    const at = (created_at: string) => append(id, { role: 'user', content: 1, created_at })
    for (const time of [
      '2026-02-30T00:00:00Z',
      '2026-02-29T00:00:00Z',
      '2026-04-31T00:00:00Z',
      '2026-13-01T00:00:00Z',
      '2026-00-10T00:00:00Z',
      '2026-01-01T25:00:00Z',
      '2026-01-01T00:00:00+99:99',
      '0000-01-01T00:00:00Z',
    ])
      expect(refusal(await at(time)), time).toEqual({
        status: 400,
        code: 'invalid_input',
        message: 'created_at is not a date that exists',
      })
    expect((await at('2024-02-29t23:59:59.9z')).body.created_at).toBe('2024-02-29T23:59:59.900Z')
    expect((await at('2024-02-29 23:30:00-01:00')).body.created_at).toBe('2024-03-01T00:30:00.000Z')
  })

  test('parent_id makes a tree, by id or message_id; leaf gives the path', async () => {
    const id = await api.newThread()
    const root = (await append(id, { role: 'user', content: 'root', message_id: 'root' })).body
    const left = (await append(id, { role: 'assistant', content: 'left' })).body
    const right = (await append(id, { role: 'assistant', content: 'right', parent_id: 'root' })).body
    const below = (await append(id, { role: 'user', content: 'below', parent_id: left.id })).body
    const top = (await append(id, { role: 'user', content: 'top', parent_id: null })).body
    expect([left.parent_id, right.parent_id, below.parent_id, top.parent_id]).toEqual([
      root.id,
      root.id,
      left.id,
      null,
    ])
    expect(contents((await list(id, `?leaf=${below.id}`)).body)).toEqual(['root', 'left', 'below'])
    expect(contents((await list(id, `?leaf=${right.id}&order=desc`)).body)).toEqual(['right', 'root'])
    expect(contents((await list(id, `?leaf=${below.id}&limit=1&after=1`)).body)).toEqual(['left'])
    expect(refusal(await list(id, `?leaf=${MISSING_ID}`))).toMatchObject({ status: 404 })
    expect(refusal(await list(id, '?leaf=nope')).message).toBe('query.leaf must be a UUID')
    for (const parent of [MISSING_ID, 'nope']) {
      const answer = await append(id, { role: 'user', content: 1, parent_id: parent })
      expect(refusal(answer)).toMatchObject({
        status: 400,
        message: `parent_id ${parent} is no message of this thread`,
      })
    }
    const elsewhere = await append(await api.newThread(), { role: 'user', content: 1, parent_id: root.id })
    expect(refusal(elsewhere)).toMatchObject({ status: 400 })
  })

  test('GET pages by seq in both directions, with before, after and cursor', async () => {
    const id = await api.newThread()
    await append(
      id,
      Array.from({ length: 10 }, (_, i) => ({ role: 'user', content: i + 1 })),
    )
    const read = async (query: string) => (await list(id, query)).body
    expect(contents(await read(''))).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    expect((await read('')).next_cursor).toBeNull()
    expect(contents(await read('?after=7'))).toEqual([8, 9, 10])
    expect(contents(await read('?before=4'))).toEqual([3, 2, 1])
    expect(contents(await read('?before=4&order=asc'))).toEqual([1, 2, 3])
    expect(contents(await read('?after=2&before=6'))).toEqual([3, 4, 5])
    expect(contents(await read('?order=desc&limit=2'))).toEqual([10, 9])
    expect(await read('?after=10')).toEqual({ items: [], next_cursor: null })
    for (const order of ['asc', 'desc']) {
      const seen: unknown[] = []
      let next: string | null = ''
      while (next !== null) {
        const page: Json = await read(`?order=${order}&limit=3${next === '' ? '' : `&cursor=${next}`}`)
        seen.push(...contents(page))
        next = page.next_cursor
        expect(seen.length).toBeLessThanOrEqual(10)
      }
      const all = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
      expect(seen).toEqual(order === 'asc' ? all : all.toReversed())
    }
  })

  test('PATCH merges meta and nothing else; DELETE is 204 twice and mends the tree', async () => {
    const id = await api.newThread()
    await append(
      id,
      ['a', 'b', 'c'].map((content) => ({ role: 'user', content, meta: { keep: 1, drop: 1 } })),
    )
    const [first, second, third] = (await list(id)).body.items
    const path = `/api/threads/${id}/messages/${second.id}`
    const patched = await api.call('PATCH', path, { meta: { drop: null, add: true } })
    expect(patched).toMatchObject({ status: 200, body: { ...second, meta: { keep: 1, add: true } } })
    for (const body of [{ content: 'x' }, { role: 'user' }, {}, { meta: null }, { meta: [] }, undefined])
      expect(refusal(await api.call('PATCH', path, body)), JSON.stringify(body)).toMatchObject({
        status: 400,
      })
    for (let i = 0; i < 2; i++) expect((await api.call('DELETE', path)).status).toBe(204)
    expect(refusal(await api.call('GET', path))).toMatchObject({ status: 404, code: 'not_found' })
    expect(refusal(await api.call('PATCH', path, { meta: {} }))).toMatchObject({ status: 404 })
    const left = (await list(id)).body.items
    expect(left.map((item: Json) => [item.seq, item.parent_id])).toEqual([
      [1, null],
      [3, first.id],
    ])
    expect(left[1].id).toBe(third.id)
    expect((await append(id, { role: 'user', content: 'd' })).body.seq).toBe(4)
    expect(refusal(await api.call('GET', `/api/threads/${id}/messages/x`)).message).toBe(
      'path.message must be a UUID',
    )
    const other = await api.newThread()
    expect(refusal(await api.call('GET', `/api/threads/${other}/messages/${first.id}`))).toMatchObject({
      status: 404,
    })
  })

  test('any JSON goes in and comes back the same, digit for digit, byte for byte', async () => {
    const id = await api.newThread()
    await fc.assert(
      fc.asyncProperty(anyJson, anyJson, anyJsonObject, async (content, tool_output, meta) => {
        const sent = JSON.stringify({ role: 'tool', content, tool_output, meta })
        const made = await append(id, sent)
        expect(made.status).toBe(201)
        const read = await api.call('GET', `/api/threads/${id}/messages/${made.body.id}`)
        const { text, created_at, ...rest } = made.body
        for (const answer of [made.text, read.text]) {
          expect(answer).toContain(`"content":${JSON.stringify(content)},"text":`)
          expect(answer).toContain(`"tool_output":${JSON.stringify(tool_output)},"meta":`)
        }
        expect(read.body).toEqual({ ...rest, text, created_at })
        expect(read.body.meta).toEqual(parseWithExactKeys(JSON.stringify(meta)))
      }),
      { numRuns: 60 },
    )
  })
})
