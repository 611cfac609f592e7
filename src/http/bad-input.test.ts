import { expect, test } from 'vitest'
import { describeApi, MISSING_ID, refusal } from '../../test/http.ts'

const BODY_LIMIT_BYTES = 1_000_000
const cursor = (...parts: unknown[]) => Buffer.from(JSON.stringify(parts)).toString('base64url')

describeApi(
  'bad input over HTTP',
  (api) => {
    const post = (body?: string | Buffer, headers?: Record<string, string>) =>
      api.call('POST', '/api/threads', body, headers)
    const get = (query: string) => api.call('GET', `/api/threads?${query}`)

    test.each([
      ['{"title": tru}', 'unexpected "}" at line 1, column 14', { position: 13, line: 1, column: 14 }],
      [
        '{\n  "title": "a"\n  "kind": 1}',
        'unexpected "\\"" at line 3, column 3',
        { position: 19, line: 3, column: 3 },
      ],
      ['{"title": "a"', 'it ends too early, at line 1, column 14', { position: 13, line: 1, column: 14 }],
      ['{"title": "a\n"}', 'unexpected "\\n" at line 1, column 13', { position: 12, line: 1, column: 13 }],
      ['\ufeff', 'it ends too early, at line 1, column 1', { position: 0, line: 1, column: 1 }],
    ])('a body that is not JSON says where: %j', async (body, reason, details) => {
      const answer = await post(body)
      expect(refusal(answer)).toEqual({
        status: 400,
        code: 'invalid_input',
        message: `the body is not JSON: ${reason}`,
      })
      expect(answer.body.error.details).toEqual(details)
    })

    test('bytes that are not UTF-8 are refused, a byte order mark is not part of the body', async () => {
      for (const bytes of [
        [0x22, 0xff, 0x22],
        [0x22, 0xc3, 0x22],
        [0x22, 0xed, 0xa0, 0x80, 0x22],
      ])
        expect(refusal(await post(Buffer.from(bytes)))).toMatchObject({
          status: 400,
          message: 'the body is not UTF-8',
        })
      expect(await post('\ufeff{"title":"marked"}')).toMatchObject({ status: 201, body: { title: 'marked' } })
    })

    test('no body and an empty one are no fields; null is not an object', async () => {
      expect((await post()).status).toBe(201)
      expect((await post('', { 'content-type': 'application/json' })).status).toBe(201)
      for (const body of ['null', '[]', '"x"', '1', 'true'])
        expect(refusal(await post(body))).toMatchObject({ status: 400, message: 'body must be object' })
    })

    test('a content type other than JSON is refused with what to send', async () => {
      const message = 'send the body as JSON, with content-type: application/json'
      for (const type of [
        'text/plain',
        'application/x-www-form-urlencoded',
        'multipart/form-data',
        'application/jsonx',
        'x',
      ])
        expect(refusal(await post('{}', { 'content-type': type })), type).toMatchObject({
          status: 400,
          message,
        })
      for (const type of ['application/json; charset=utf-8', 'APPLICATION/JSON', 'application/vnd.api+json'])
        expect((await post('{}', { 'content-type': type })).status, type).toBe(201)
    })

    test('a body over the limit is 413 and names the limit; one just below is read', async () => {
      const padding = (bytes: number) => JSON.stringify({ meta: { a: 'x'.repeat(bytes - 17) } })
      const large = await post(padding(BODY_LIMIT_BYTES + 1))
      expect(refusal(large)).toEqual({
        status: 413,
        code: 'too_large',
        message: 'the body is larger than 1000000 bytes',
      })
      expect(large.body.error.details).toEqual({ limit_bytes: BODY_LIMIT_BYTES })
      expect((await post(padding(BODY_LIMIT_BYTES))).status).toBe(201)
    })

    test.each([
      ['{"titel":"x"}', 'body has a field that is not known: titel'],
      ['{"__proto__":{"title":"x"}}', 'body has a field that is not known: __proto__'],
      ['{"constructor":1}', 'body has a field that is not known: constructor'],
      ['{"toString":1}', 'body has a field that is not known: toString'],
      ['{"title":1}', 'body.title must be string'],
      ['{"meta":null}', 'body.meta must be object'],
      ['{"kind":"other"}', 'body.kind must be one of: chat, council, chain_analysis, flow'],
      ['{"id":"x"}', 'body.id must be a UUID'],
      ['{"title":"a\\u0000b"}', 'body.title must not hold NUL or half of a surrogate pair'],
      ['{"title":"\\ud800"}', 'body.title must not hold NUL or half of a surrogate pair'],
    ])('%s: %s', async (body, message) => {
      expect(refusal(await post(body))).toEqual({ status: 400, code: 'invalid_input', message })
    })

    test('a title has at most 500 characters, whatever they are made of', async () => {
      const title = (text: string) => api.call('POST', '/api/threads', { title: text })
      for (const text of ['a'.repeat(500), '😀'.repeat(500), 'e\u0301'.repeat(250)])
        expect(await title(text)).toMatchObject({ status: 201, body: { title: text } })
      for (const text of ['a'.repeat(501), '😀'.repeat(501), 'e\u0301'.repeat(251)])
        expect(refusal(await title(text))).toMatchObject({
          status: 400,
          message: 'body.title must not have more than 500 characters',
        })
    })

    test.each([
      ['limit=0', 'query.limit must be >= 1'],
      ['limit=101', 'query.limit must be <= 100'],
      ['limit=-1', 'query.limit must be >= 1'],
      ['limit=abc', 'query.limit must be integer'],
      ['limit=1.5', 'query.limit must be integer'],
      ['limit=1e1', 'query.limit must be integer'],
      ['limit=', 'query.limit must be integer'],
      ['limit=99999999999999999999', 'query.limit must be integer'],
      ['limit=1&limit=2', 'query.limit must be integer'],
      ['q=a&q=b', 'query.q must be string'],
      ['q=%00', 'query.q must not hold NUL or half of a surrogate pair'],
      [`q=${'x'.repeat(501)}`, 'query.q must not have more than 500 characters'],
      ['include_archived=maybe', 'query.include_archived must be boolean'],
      ['kind=other', 'query.kind must be one of: chat, council, chain_analysis, flow'],
      ['unknown=1', 'query has a field that is not known: unknown'],
      ['__proto__=1', 'query has a field that is not known: __proto__'],
      ['constructor=1', 'query has a field that is not known: constructor'],
    ])('?%s: %s', async (query, message) => {
      expect(refusal(await get(query))).toEqual({ status: 400, code: 'invalid_input', message })
    })

    test('a parameter that a call does not know is refused there, too', async () => {
      const id = await api.newThread()
      const message = 'query has a field that is not known: at'
      // meant for the body
      expect(refusal(await api.call('POST', `/api/threads/${id}/fork?at=0`))).toMatchObject({
        status: 400,
        message,
      })
      expect(refusal(await api.call('DELETE', `/api/threads/${id}?at=0`))).toMatchObject({
        status: 400,
        message,
      })
      expect(refusal(await api.call('GET', '/api/config/defaults?at=0'))).toMatchObject({
        status: 400,
        message,
      })
      expect((await api.call('GET', `/api/threads/${id}`)).status).toBe(200)
      // probes are often sent with something against caches
      expect((await api.call('GET', '/health?t=1')).status).toBe(200)
      expect((await api.call('GET', '/ready?t=1')).status).toBe(200)
    })

    test('a cursor that this list did not give out is refused as one', async () => {
      const id = await api.newThread()
      const message = 'cursor is not one that this list gave out'
      for (const text of [
        'abc',
        '',
        '%00',
        cursor('messages', 'asc', 1),
        cursor('threads'),
        cursor('threads', 'x', MISSING_ID),
        cursor('threads', 1),
        cursor('threads', 1, 'x'),
        cursor('threads', 1e300, MISSING_ID),
        cursor('threads', -8.64e15, MISSING_ID),
        cursor('threads', 1.5, MISSING_ID),
        cursor('threads', 1, MISSING_ID, 2),
      ]) {
        const answer = await get(`cursor=${text}`)
        expect(refusal(answer), text).toEqual({ status: 400, code: 'invalid_input', message })
        expect(answer.body.error.details).toEqual({ field: 'cursor' })
      }
      for (const text of [
        'abc',
        cursor('threads', 1, MISSING_ID),
        cursor('messages', 'up', 1),
        cursor('messages', 'asc', 1.5),
        cursor('messages', 'asc', -1),
        cursor('messages', 'desc', 1e300),
        cursor('messages', 'asc', '1'),
      ]) {
        const answer = await api.call('GET', `/api/threads/${id}/messages?cursor=${text}`)
        expect(refusal(answer), text).toEqual({ status: 400, code: 'invalid_input', message })
      }
    })

    test('a path that no id can be, or that is not even a path', async () => {
      for (const id of [
        'x',
        '%00',
        `${MISSING_ID}%0a`,
        `%20${MISSING_ID}`,
        '',
        'constructor',
        '%F0%9F%98%80',
      ])
        expect(refusal(await api.call('GET', `/api/threads/${id}`)), id).toMatchObject({
          status: 400,
          message: 'path.id must be a UUID',
        })
      for (const id of ['%zz', '%ff', 'x'.repeat(600)])
        expect(refusal(await api.call('GET', `/api/threads/${id}`)), id).toMatchObject({ status: 400 })
    })
  },
  { bodyLimitBytes: BODY_LIMIT_BYTES },
)
