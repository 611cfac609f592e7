import { expect, test } from 'vitest'
import { exactNumber } from '../../test/arbitraries.ts'
import { describeApi, MISSING_ID, refusal } from '../../test/http.ts'

const nested = (levels: number) => '['.repeat(levels) + ']'.repeat(levels)

describeApi('odd JSON over HTTP', (api) => {
  test('deep nesting is refused with the limit, never an overflow', async () => {
    const id = await api.newThread()
    const message = 'JSON is nested deeper than 500 levels'
    const bodies = (value: string): [string, string][] => [
      [`/api/threads/${id}/messages`, `{"role":"user","content":${value}}`],
      [`/api/threads/${id}/messages`, `[{"role":"user","content":[{"type":"text","content":${value}}]}]`],
      [`/api/threads/${id}/messages`, `{"role":"user","content":1,"tool_input":${value}}`],
      [`/api/threads/${id}/messages`, `{"role":"user","content":1,"meta":{"a":${value}}}`],
      ['/api/threads', `{"meta":{"a":${value}}}`],
      ['/api/threads', `{"id":"${MISSING_ID}","meta":{"a":${value}}}`],
    ]
    const objects = (levels: number) => '{"a":'.repeat(levels) + 1 + '}'.repeat(levels)
    const parts = (levels: number) => '{"content":'.repeat(levels) + 1 + '}'.repeat(levels)
    // a number that no double holds takes another way through the parser
    const numbers = (levels: number) => `${'['.repeat(levels)}9007199254740993${']'.repeat(levels)}`
    for (const make of [nested, objects, parts, numbers])
      for (const levels of [1_000, 80_000])
        for (const [url, body] of bodies(make(levels)))
          expect(
            refusal(await api.call('POST', url, body)),
            `${make.name} ${levels} ${body.slice(0, 60)}`,
          ).toEqual({
            status: 400,
            code: 'invalid_input',
            message,
          })
    const config = await api.call('PUT', `/api/threads/${id}/config`, `{"settings":{"a":${nested(80_000)}}}`)
    expect(refusal(config)).toMatchObject({ status: 400, message })
    expect((await api.call('POST', '/api/threads', `{"meta":{"a":${nested(400)}}}`)).status).toBe(201)
    expect(refusal(await api.call('POST', '/api/threads', nested(400_000)))).toMatchObject({
      status: 400,
      message: 'body must be object',
    })
    expect((await api.call('GET', `/api/threads/${id}/messages`)).body.items).toEqual([])
  })

  test('numbers beyond a double: text for text in content, value for value in meta, or refused', async () => {
    const id = await api.newThread()
    const numbers = [
      '1e400',
      '-1E-400',
      '9007199254740993',
      '18446744073709551615',
      '0.1000000000000000000001',
      '-0',
    ]
    const made = await api.call(
      'POST',
      `/api/threads/${id}/messages`,
      `{"role":"user","content":[${numbers}],"meta":{"a":[${numbers}]}}`,
    )
    const read = await api.call('GET', `/api/threads/${id}/messages/${made.body.id}`)
    for (const { text } of [made, read]) {
      expect(text).toContain(`"content":[${numbers}]`)
      const meta = /"a":\[([^\]]*)\]/.exec(text)?.[1]?.split(',') ?? []
      expect(meta.map(exactNumber)).toEqual(numbers.map(exactNumber))
    }
    // jsonb would spell them out, or not take them at all
    for (const number of ['1e200000', '1e-20000']) {
      const { status, text } = await api.call('POST', '/api/threads', `{"meta":{"a":${number}}}`)
      expect(status).toBe(201)
      expect(text).toContain(`"meta":{"a":${number}}`)
    }
    // jsonb keeps numbers of at most 131,072 digits before the point
    const digits = '9'.repeat(140_000)
    expect(refusal(await api.call('POST', '/api/threads', `{"meta":{"a":${digits}}}`))).toMatchObject({
      status: 400,
      code: 'invalid_input',
    })
    expect(
      (await api.call('POST', `/api/threads/${id}/messages`, '{"role":"user","content":1e200000}')).status,
    ).toBe(201)
  })

  test('keys that mean something to JavaScript are data in meta and content', async () => {
    const value =
      '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"toString":1,"hasOwnProperty":2,"a\\nb":3,"":4}'
    const id = await api.newThread()
    const path = `/api/threads/${id}/messages`
    const { body } = await api.call('POST', path, `{"role":"user","content":${value},"meta":${value}}`)
    const read = await api.call('GET', `${path}/${body.id}`)
    expect(read.text).toContain(`"content":${value}`)
    const { meta } = JSON.parse(read.text)
    expect(Object.entries(meta).sort()).toEqual(Object.entries(JSON.parse(value)).sort())
    expect(({} as Record<string, unknown>).polluted).toBeUndefined()
  })

  test('of a key that comes twice the last one counts, as everywhere in JavaScript', async () => {
    const { body } = await api.call('POST', '/api/threads', '{"title":"a","title":"b","meta":{"x":1,"x":2}}')
    expect(body).toMatchObject({ title: 'b', meta: { x: 2 } })
  })

  test('NUL and lone surrogates: kept in content, tools and meta, refused in names', async () => {
    const id = await api.newThread()
    const path = `/api/threads/${id}/messages`
    const value = '"a\\u0000b\\ud800c\\udfff"'
    const made = await api.call(
      'POST',
      path,
      `{"role":"tool","content":${value},"tool_input":{${value}:1},"tool_output":[${value}],"meta":{${value}:${value}}}`,
    )
    expect(made.status).toBe(201)
    expect(made.body.text).toBe('a\ufffdb\ufffdc\ufffd')
    const read = await api.call('GET', `${path}/${made.body.id}`)
    for (const part of [
      `"content":${value}`,
      `"tool_input":{${value}:1}`,
      `[${value}]`,
      `"meta":{${value}:${value}}`,
    ])
      expect(read.text).toContain(part)
    for (const field of ['message_id', 'parent_id', 'tool_name'])
      expect(
        refusal(await api.call('POST', path, `{"role":"user","content":1,"${field}":${value}}`)),
      ).toMatchObject({
        status: 400,
        message: `body.${field} must not hold NUL or half of a surrogate pair`,
      })
  })
})
