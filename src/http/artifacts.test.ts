import { randomUUID } from 'node:crypto'
import { expect, test } from 'vitest'
import { ODD_NAMES } from '../../test/bytes.ts'
import { FORM, filePart, formOf, type Part } from '../../test/forms.ts'
import { type Answer, describeApi, INSTANT, type Json, MISSING_ID, refusal, UUID } from '../../test/http.ts'
import { announce, sha256Of } from '../../test/uploads.ts'

const PNG = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==',
  'base64',
)
const HTML = '<!doctype html><script>alert(1)</script>'

describeApi('artifacts over HTTP', (api) => {
  const { call } = api
  const send = (...args: Parameters<typeof call>) => api.call(...args)
  const stored = async () => (await send('GET', '/api/files?limit=200')).body.items.length
  const post = (parts: Part[], query = '') => send('POST', `/api/files${query}`, formOf(...parts), FORM)
  const raw = (bytes: string | Buffer, headers: Record<string, string> = {}, query = '') =>
    send('POST', `/api/files${query}`, bytes, { 'content-type': 'application/octet-stream', ...headers })
  const contentOf = async ({ body }: Answer) =>
    (await api.app.inject({ method: 'GET', url: `/api/files/${body.id}/content` })).rawPayload

  test('an artifact, as a form and as it is', async () => {
    const thread = await api.newThread()
    const url = `/api/threads/${thread}/artifacts`
    const fields = { session_id: 's', run_id: 'r', tool_call_id: 'c', meta: '{"a":{"b":[1]}}' }
    const parts = Object.entries(fields).map(([name, value]) => ({ name, value }))
    const expected = {
      ...{ id: expect.stringMatching(UUID), user_id: 'local', thread_id: thread, filename: 'a.csv' },
      ...{ mime: 'text/csv', ...announce('a,b\n'), ...fields, meta: { a: { b: [1] } } },
      created_at: expect.stringMatching(INSTANT),
    }
    // fields before the file, behind it, and in the query
    const file = filePart('a,b\n', 'a.csv')
    const made = [
      await send('POST', url, formOf(...parts, file), FORM),
      await send('POST', url, formOf(file, ...parts), FORM),
      await send(
        'POST',
        `${url}?run_id=r`,
        formOf(file, ...parts.filter(({ name }) => name !== 'run_id')),
        FORM,
      ),
      await send('POST', `${url}?${new URLSearchParams(fields)}`, 'a,b\n', {
        'content-type': 'text/csv',
        'x-filename': 'a.csv',
      }),
    ]
    for (const { status, body, headers } of made) {
      expect(status).toBe(201)
      expect(body).toEqual(expected)
      expect(headers.location).toBe(`/api/artifacts/${body.id}`)
      expect(await send('GET', String(headers.location))).toMatchObject({ status: 200, body })
    }
    const list = await send('GET', `${url}?limit=3`)
    expect(list.body.items.map(({ id }: Json) => id)).toEqual(
      made
        .map(({ body }) => body.id)
        .reverse()
        .slice(0, 3),
    )
    const rest = await send('GET', `${url}?limit=3&cursor=${list.body.next_cursor}`)
    expect([rest.body.items[0].id, rest.body.next_cursor]).toEqual([made[0]?.body.id, null])
    const id = made[0]?.body.id
    expect((await send('GET', `/api/artifacts/${id}/head`)).body).toEqual({
      ...{ id, mime: 'text/csv', exists: true, stored_at: expect.stringMatching(INSTANT) },
      ...announce('a,b\n'),
    })
    expect((await send('DELETE', `/api/artifacts/${id}`)).status).toBe(204)
    expect((await send('DELETE', `/api/artifacts/${id}`)).status).toBe(204)
    for (const part of ['', '/head', '/content', '/download'])
      expect(refusal(await send('GET', `/api/artifacts/${id}${part}`))).toMatchObject({ status: 404 })
  })

  test('JSON, a form of the web and nothing at all are bytes like any others', async () => {
    for (const [bytes, type] of [
      ['{"a": 1.0,  "__proto__": {}}', 'application/json'],
      ['a=1&b=2', 'application/x-www-form-urlencoded'],
      ['{', 'application/json; charset=utf-8'],
      ['', 'image/png'],
      ['', 'application/json'],
      ['\0\x01', 'text/plain'],
    ] as const) {
      const made = await raw(bytes, { 'content-type': type })
      expect(made, type).toMatchObject({ status: 201, body: announce(bytes) })
      expect(String(await contentOf(made))).toBe(bytes)
    }
    const none = await api.app.inject({ method: 'POST', url: '/api/files' })
    expect([none.statusCode, none.json().size ?? none.json().error.code]).toEqual([400, 'invalid_input'])
  })

  test('names come as they are: in forms, in the query, in the header as UTF-8 or percent-encoded', async () => {
    const name = `Überblick 用户 🙂 ${randomUUID()}.txt`
    const nameOf = ({ body }: Answer) => body.name
    expect(nameOf(await post([filePart('x', name)]))).toBe(name)
    const variants: Record<string, string> = {
      utf8: Buffer.from(`1 ${name}`).toString('latin1'),
      percent: encodeURIComponent(`2 ${name}`),
    }
    expect(nameOf(await raw('x', { 'x-filename': variants.utf8 as string }))).toBe(`1 ${name}`)
    expect(nameOf(await raw('x', { 'x-filename': variants.percent as string }))).toBe(`2 ${name}`)
    expect(nameOf(await raw('x', { 'x-filename': '100% sure.txt' }))).toBe('100% sure.txt')
    // a form's own field, and the query, come before the file's name
    expect(nameOf(await post([{ name: 'filename', value: `3 ${name}` }, filePart('x', 'other')]))).toBe(
      `3 ${name}`,
    )
    expect(nameOf(await raw('x', { 'x-filename': 'other' }, '?filename=asked'))).toBe('asked')
  })

  test('what a name or a field holds cannot end a header, lead to a path or make another one', async () => {
    for (const filename of ODD_NAMES.filter((name) => name.isWellFormed())) {
      const made = await raw('<p>', {}, `?filename=${encodeURIComponent(`${filename}${randomUUID()}.html`)}`)
      expect(made.status).toBe(201)
      expect(made.body.name).toContain(filename)
      const { id } = made.body
      const redirect = await api.app.inject({ method: 'GET', url: `/api/files/${id}/download` })
      for (const url of [`/api/files/${id}/content`, String(redirect.headers.location)]) {
        const { statusCode, headers, payload } = await api.app.inject({ method: 'GET', url })
        expect([statusCode, payload]).toEqual([200, '<p>'])
        expect(headers['content-disposition']).toMatch(/^attachment; filename=[\x20-\x7e]+$/)
        expect(headers['content-type']).toBe('text/html; charset=utf-8')
        expect(headers).not.toHaveProperty('set-cookie')
      }
    }
    const mime = 'text/html\r\nset-cookie: x=1'
    for (const made of [
      await raw('x', {}, `?mime=${encodeURIComponent(mime)}`),
      await post([filePart('x'), { name: 'mime', value: mime }]),
    ]) {
      expect(made).toMatchObject({ status: 201, body: { mime: 'text/plain' } })
    }
    const meta = { 'a\r\nb': 'c\r\nset-cookie: x', __proto__x: 1 }
    expect((await post([filePart('x'), { name: 'meta', value: JSON.stringify(meta) }])).body.meta).toEqual(
      meta,
    )
  })

  test.each<[what: string, bytes: string | Buffer, type: string, served: string, kind: string]>([
    ['a page', HTML, 'text/html', 'text/html; charset=utf-8', 'attachment'],
    ['a page that is called an image', HTML, 'image/png', 'text/plain; charset=utf-8', 'inline'],
    [
      'a drawing with script',
      '<svg xmlns="http://www.w3.org/2000/svg"/>',
      'image/svg+xml',
      'image/svg+xml',
      'attachment',
    ],
    [
      'XHTML',
      '<html xmlns="http://www.w3.org/1999/xhtml"/>',
      'application/xhtml+xml',
      'application/xhtml+xml',
      'attachment',
    ],
    ['XML', '<a/>', 'text/xml', 'text/xml; charset=utf-8', 'attachment'],
    ['script', 'alert(1)', 'text/javascript', 'text/javascript; charset=utf-8', 'attachment'],
    ['a style', 'a{}', 'text/css', 'text/css; charset=utf-8', 'attachment'],
    ['a document', '%PDF-1.7', 'text/html', 'application/pdf', 'inline'],
    ['an image that is called a page', PNG, 'text/html', 'image/png', 'inline'],
    ['text', 'hello', 'text/plain', 'text/plain; charset=utf-8', 'inline'],
  ])('%s is served so that no browser runs it', async (_, bytes, type, served, kind) => {
    const { body } = await raw(bytes, { 'content-type': type, 'x-filename': 'a' })
    const redirect = await api.app.inject({ method: 'GET', url: `/api/files/${body.id}/download` })
    expect([redirect.statusCode, redirect.payload]).toEqual([307, ''])
    for (const url of [`/api/files/${body.id}/content`, String(redirect.headers.location)]) {
      const { headers, rawPayload } = await api.app.inject({ method: 'GET', url })
      expect(headers).toMatchObject({
        'content-type': served,
        'content-disposition': expect.stringMatching(`^${kind}; filename=`),
        'content-length': String(Buffer.byteLength(bytes)),
        'x-content-type-options': 'nosniff',
        'content-security-policy': expect.stringContaining("default-src 'none'"),
        'cache-control': 'private, no-cache',
        'cross-origin-resource-policy': 'same-origin',
        'accept-ranges': 'bytes',
        etag: `"${body.sha256}"`,
      })
      expect(rawPayload.equals(Buffer.from(bytes))).toBe(true)
    }
    for (const part of ['content', 'download']) {
      const url = `/api/files/${body.id}/${part}?download=true`
      const answer = await api.app.inject({ method: 'GET', url })
      const last =
        part === 'content'
          ? answer
          : await api.app.inject({ method: 'GET', url: String(answer.headers.location) })
      expect(last.headers['content-disposition']).toMatch(/^attachment; filename=/)
    }
  })

  test('parts, tags and heads', async () => {
    const { body } = await raw('0123456789')
    const tag = `"${body.sha256}"`
    const { location } = (await api.app.inject({ method: 'GET', url: `/api/files/${body.id}/download` }))
      .headers
    for (const url of [`/api/files/${body.id}/content`, String(location)]) {
      const get = (headers: Record<string, string>, method: 'GET' | 'HEAD' = 'GET') =>
        api.app.inject({ method, url, headers })
      const part = async (range: string, more: Record<string, string> = {}) => {
        const { statusCode, payload, headers } = await get({ range, ...more })
        return [statusCode, payload, headers['content-range'], headers['content-length']]
      }
      const whole = [200, '0123456789', undefined, '10']
      expect(await part('bytes=2-4')).toEqual([206, '234', 'bytes 2-4/10', '3'])
      expect(await part('bytes=-3')).toEqual([206, '789', 'bytes 7-9/10', '3'])
      expect(await part('bytes=9-')).toEqual([206, '9', 'bytes 9-9/10', '1'])
      expect(await part('bytes=0-100')).toEqual([206, '0123456789', 'bytes 0-9/10', '10'])
      expect(await part('bytes=10-')).toEqual([416, '', 'bytes */10', '0'])
      for (const range of ['bytes=4-2', 'bytes=0-1,4-5', 'lines=1-2', 'bytes=x'])
        expect(await part(range), range).toEqual(whole)
      expect(await part('bytes=2-4', { 'if-range': tag })).toEqual([206, '234', 'bytes 2-4/10', '3'])
      for (const other of ['"other"', `W/${tag}`, 'Wed, 21 Oct 2015 07:28:00 GMT'])
        expect(await part('bytes=2-4', { 'if-range': other }), other).toEqual(whole)
      for (const known of [tag, `W/${tag}`, '*', `"x", ${tag}`]) {
        const answer = await get({ 'if-none-match': known, range: 'bytes=0-1' })
        expect([answer.statusCode, answer.payload, answer.headers.etag], known).toEqual([304, '', tag])
      }
      expect((await get({ 'if-none-match': '"other"' })).statusCode).toBe(200)
      const head = await get({}, 'HEAD')
      expect([head.statusCode, head.payload, head.headers['content-length'], head.headers.etag]).toEqual([
        200,
        '',
        '10',
        tag,
      ])
      const headOfPart = await get({ range: 'bytes=1-2' }, 'HEAD')
      expect([headOfPart.statusCode, headOfPart.payload, headOfPart.headers['content-length']]).toEqual([
        206,
        '',
        '2',
      ])
    }
    const empty = await raw('')
    const url = `/api/files/${empty.body.id}/content`
    expect(await api.app.inject({ method: 'GET', url })).toMatchObject({ statusCode: 200, payload: '' })
    expect(await api.app.inject({ method: 'GET', url, headers: { range: 'bytes=0-' } })).toMatchObject({
      statusCode: 416,
    })
  })

  test('URLs that expired, were altered or are of another kind are refused', async () => {
    const { body } = await raw('secret')
    const other = await raw('other')
    const urlOf = async (query = '') =>
      new URL(
        String((await send('GET', `/api/files/${body.id}/download${query}`)).headers.location),
        'http://x',
      )
    const get = async (url: URL) => refusal(await send('GET', url.pathname + url.search))
    const altered = async (change: (url: URL) => void) => {
      const url = await urlOf()
      change(url)
      return get(url)
    }
    const refused = { status: 403, code: 'forbidden' }
    const changes: ((url: URL) => void)[] = [
      ({ searchParams }) => searchParams.set('type', 'text/html'),
      ({ searchParams }) => searchParams.set('disposition', 'inline'),
      ({ searchParams }) => searchParams.set('expires', '99999999999'),
      ({ searchParams }) => searchParams.set('signature', `${searchParams.get('signature')}A`),
      ({ searchParams }) => searchParams.set('signature', 'A'.repeat(43)),
      ({ searchParams }) => searchParams.delete('signature'),
      ({ searchParams }) => searchParams.delete('expires'),
      (url) => (url.search = ''),
      (url) => (url.pathname = `/api/blobs/${other.body.sha256}`),
    ]
    for (const change of changes) expect(await altered(change), String(change)).toMatchObject(refused)
    expect((await altered(({ searchParams }) => searchParams.append('type', 'x'))).status).toBe(400)
    const soon = await urlOf('?expires_in_s=1')
    expect((await send('GET', soon.pathname + soon.search)).status).toBe(200)
    await new Promise((resolve) => setTimeout(resolve, 2_100))
    expect(await get(soon)).toEqual({ ...refused, message: 'this URL has expired' })
    for (const query of ['?expires_in_s=0', '?expires_in_s=604801', '?expires_in_s=x', '?other=1'])
      expect((await send('GET', `/api/files/${body.id}/download${query}`)).status).toBe(400)
    // a signature to read does not write
    const url = await urlOf()
    const name = randomUUID()
    for (const path of [`/api/blobs/uploads/${name}`, `/api/blobs/uploads/${MISSING_ID}`])
      expect(refusal(await send('PUT', path + url.search, 'x'))).toMatchObject(refused)
    const { signature } = Object.fromEntries(url.searchParams)
    const query = `?sha256=${body.sha256}&size=6&expires=99999999999&signature=${signature}`
    expect(refusal(await send('PUT', `/api/blobs/uploads/${name}${query}`, 'secret'))).toMatchObject(refused)
    expect((await send('PUT', `/api/blobs/uploads/..%2f..%2fx${query}`, 'x')).status).toBe(400)
  })

  test('a presigned PUT, its completion, and what each refuses', async () => {
    const thread = await api.newThread()
    for (const place of [`/api/threads/${thread}/artifacts`, '/api/files']) {
      const bytes = `put ${randomUUID()}`
      const named = place === '/api/files' ? 'name' : 'filename'
      const started = await send('POST', `${place}/uploads`, {
        ...announce(bytes),
        filename: 'put.txt',
        meta: { a: 1 },
      })
      expect(started.status).toBe(201)
      const { token, url, method, headers, expires_at } = started.body
      expect([method, headers['content-length'], expires_at]).toEqual([
        'PUT',
        String(bytes.length),
        expect.stringMatching(INSTANT),
      ])
      const complete = (): Promise<Answer> => send('POST', `${place}/uploads/${token}/complete`)
      const put = (body: string, to = url) =>
        send('PUT', to, body, { 'content-type': 'application/octet-stream' })
      expect(refusal(await complete())).toMatchObject({ status: 409, code: 'conflict' })
      for (const wrong of [bytes.toUpperCase(), `${bytes}!`, bytes.slice(1), ''])
        expect(refusal(await put(wrong)), wrong).toMatchObject({ status: 400, code: 'invalid_input' })
      const longer = new URL(url, 'http://x')
      longer.searchParams.set('size', '4')
      expect(refusal(await put('many', longer.pathname + longer.search))).toMatchObject({ status: 403 })
      expect(refusal(await send('GET', `/api/blobs/${sha256Of(bytes)}${longer.search}`)).status).toBe(403)
      expect(refusal(await complete())).toMatchObject({ status: 409 })
      expect(await put(bytes)).toMatchObject({ status: 200, text: '' })
      const made = await complete()
      expect(made).toMatchObject({
        status: 201,
        body: { id: token, [named]: 'put.txt', meta: { a: 1 }, ...announce(bytes) },
      })
      expect(made.headers.location).toMatch(new RegExp(`^/api/(artifacts|files)/${token}$`))
      expect(await complete()).toMatchObject({ status: 200, body: made.body })
      expect(refusal(await send('POST', `${place}/uploads/${MISSING_ID}/complete`))).toMatchObject({
        status: 404,
      })
    }
    for (const wrong of [
      {},
      { sha256: 'x', size: 1 },
      { ...announce('x'), id: MISSING_ID },
      { ...announce('x'), size: -1 },
    ])
      expect((await send('POST', '/api/files/uploads', wrong)).status).toBe(400)
  })

  test('a form that cannot be read is refused and leaves nothing', async () => {
    const before = await stored()
    const file = filePart('bytes')
    const many = Array.from({ length: 60 }, (_, n) => ({ name: `f${n}`, value: 'x' }))
    const forms: Record<string, Part[]> = {
      'no file': [{ name: 'meta', value: '{}' }],
      'a file without a filename': [{ name: 'file', value: 'x' }],
      'two files': [file, file],
      'too many fields': [...many, file],
      'too many fields behind the file': [file, ...many],
      'a field that is too large': [file, { name: 'meta', value: 'x'.repeat(1_000_001) }],
      'a field that is not known': [{ name: 'other', value: 'x' }, file],
      'a field that is __proto__': [{ name: '__proto__', value: '{"filename":"x"}' }, file],
      'a field that is constructor': [file, { name: 'constructor', value: 'x' }],
      'meta that is not JSON': [file, { name: 'meta', value: '{' }],
      'meta that is no object': [file, { name: 'meta', value: '[1]' }],
      'a flow that is no UUID': [file, { name: 'flow_id', value: 'x' }],
      'temporary that is neither': [file, { name: 'temporary', value: 'maybe' }],
      'another hash': [file, { name: 'sha256', value: 'a'.repeat(64) }],
      'another size': [{ name: 'size', value: '4' }, file],
      'an empty name': [{ name: 'filename', value: '' }, file],
    }
    for (const [what, parts] of Object.entries(forms))
      expect(refusal(await post(parts)), what).toMatchObject({ status: 400, code: 'invalid_input' })
    const whole = formOf({ name: 'meta', value: '{}' }, file)
    for (const type of [
      'multipart/form-data',
      'multipart/form-data; boundary=',
      'multipart/form-data; boundary=other',
    ])
      expect((await send('POST', '/api/files', whole, { 'content-type': type })).status, type).toBe(400)
    for (let length = whole.length - 3; length > 0; length -= 7) {
      const answer = await send('POST', '/api/files', whole.subarray(0, length), FORM)
      expect(refusal(answer), `${length}`).toMatchObject({ status: 400, code: 'invalid_input' })
    }
    for (const query of [
      '?other=1',
      '?meta={',
      '?size=1',
      `?sha256=${'a'.repeat(64)}`,
      '?flow_id=x',
      '?filename=a&filename=b',
    ])
      expect((await raw('bytes', {}, query)).status, query).toBe(400)
    expect(await stored()).toBe(before)
    expect(await api.opened.tb.blobs.sweepStaged(-60_000)).toBe(0)
  })

  test('fields of a form are read as what they are', async () => {
    const flow = randomUUID()
    const { body } = await post([
      { name: 'temporary', value: 'true' },
      { name: 'flow_id', value: flow },
      filePart('bytes'),
      { name: 'size', value: '5' },
      { name: 'sha256', value: sha256Of('bytes') },
      { name: 'meta', value: '{"long": 12345678901234567890, "nul": "\\u0000"}' },
    ])
    expect(body).toMatchObject({ flow_id: flow, expires_at: expect.stringMatching(INSTANT) })
    const { text } = await send('GET', `/api/files/${body.id}`)
    expect(text).toContain('12345678901234567890')
    expect(text).toContain('"nul":"\\u0000"')
    const list = await send('GET', `/api/files?flow_id=${flow}`)
    expect(list.body.items.map(({ id }: Json) => id)).toEqual([body.id])
    const patch = { name: 'renamed', expires_at: null, meta: { long: null } }
    expect((await send('PATCH', `/api/files/${body.id}`, patch)).body).toMatchObject({
      ...{ name: 'renamed', expires_at: null, meta: { nul: '\0' } },
    })
    expect((await send('PATCH', `/api/files/${body.id}`, {})).status).toBe(400)
  })

  test('nothing of it was an error of the server', () => {
    expect(api.logged.filter(({ level }) => level >= 50)).toEqual([])
  })
})
