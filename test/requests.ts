import fc from 'fast-check'
import { EMAIL, KEY_SCOPE, USERNAME } from '../src/core/fields.ts'
import { anyJson, anyText } from './arbitraries.ts'
import type { Json } from './http.ts'

/** A request made from an OpenAPI document: valid, or damaged in some place. */
export type FuzzRequest = {
  operation: Json
  method: string
  /** With `{id}` and the like filled in, from the ids given at the time of the request. */
  url: (ids: KnownIds) => string
  body: string | undefined
  headers: Record<string, string>
}

/** Of threads, artifacts, variables and API keys, of messages, of users, of uploads; names of providers, hashes of bytes and names of places for them; formats; numbers of versions. */
export type KnownIds = Record<
  'id' | 'message' | 'user' | 'provider' | 'token' | 'sha256' | 'name' | 'format' | 'version',
  string[]
>

const METHODS = ['get', 'put', 'post', 'patch', 'delete']

/** Requests for every operation of a document, each as likely as the others. */
export function anyRequest(document: Json): fc.Arbitrary<FuzzRequest> {
  const operations = Object.entries<Json>(document.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => method in item).map((method) => requestOf(path, method, item[method])),
  )
  return fc.oneof(...operations)
}

function requestOf(path: string, method: string, operation: Json): fc.Arbitrary<FuzzRequest> {
  const inQuery = (operation.parameters ?? []).filter((parameter: Json) => parameter.in === 'query')
  const { content } = operation.requestBody ?? {}
  return fc
    .record({
      ids: fc.record({
        id: anyId,
        message: anyId,
        user: anyId,
        provider: anyId,
        token: anyId,
        sha256: anyId,
        name: anyId,
        format: anyId,
        version: anyId,
      }),
      query: anyQuery(inQuery),
      sent: content === undefined ? fc.constant({ body: undefined, type: undefined }) : anyContent(content),
      headers: rarely(anyHeaders, {}),
    })
    .map(({ ids, query, sent: { body, type }, headers }) => ({
      operation,
      method: method.toUpperCase(),
      url: (known) =>
        path.replace(/\{(\w+)\}/g, (_, name: keyof KnownIds) => ids[name](known[name])) +
        (query === '' ? '' : `?${query}`),
      body,
      headers: { ...(body === undefined ? {} : { 'content-type': type }), ...headers },
    }))
}

type Sent = { body: string | undefined; type: string }

/** JSON where the operation takes it, else bytes: as they are, or in a form. */
function anyContent(content: Record<string, { schema: Json }>): fc.Arbitrary<Sent> {
  const json = content['application/json']?.schema
  if (json !== undefined) return anyBody(json).map((body) => ({ body, type: 'application/json' }))
  const types = fc.constantFrom('application/octet-stream', 'text/html', 'application/json', 'image/png')
  const raw = fc.record({ body: fc.oneof(anyText, fc.constantFrom('', '{"a":1}', '<svg/>')), type: types })
  const form = content['multipart/form-data']?.schema
  return form === undefined ? raw : fc.oneof(raw, anyForm(form))
}

const BOUNDARY = 'a-boundary'

/** A form with the parts of the schema, sometimes with odd values in them or cut short. */
function anyForm({ properties }: Json): fc.Arbitrary<Sent> {
  const fields = Object.keys(properties).filter((name) => name !== 'file')
  const value = fc.oneof(fc.constantFrom('{"a":1}', 'true', '3', 'a.html'), oddText)
  const field = fc.tuple(fc.constantFrom(...fields, '__proto__', 'other'), value)
  const file = fc.tuple(fc.constantFrom('filename="a.csv"', 'filename="../\u202e"', 'x=y'), anyText)
  const parts = fc.record({
    before: fc.array(field, { maxLength: 2 }),
    files: fc
      .array(file, { minLength: 1, maxLength: 1 })
      .chain((one) => rarely(fc.constantFrom([], [...one, ...one]), one)),
    behind: fc.array(field, { maxLength: 2 }),
    cut: rarely(fc.nat({ max: 60 }), 0),
  })
  const part = (head: string, body: string) =>
    `--${BOUNDARY}\r\ncontent-disposition: form-data; ${head}\r\n\r\n${body}\r\n`
  return parts.map(({ before, files, behind, cut }) => {
    const texts = (list: [string, string][]) => list.map(([name, text]) => part(`name="${name}"`, text))
    const bytes = files.map(([name, text]) => part(`name="file"; ${name}`, text))
    const whole = [...texts(before), ...bytes, ...texts(behind), `--${BOUNDARY}--\r\n`].join('')
    return {
      body: whole.slice(0, whole.length - cut),
      type: `multipart/form-data; boundary=${BOUNDARY}`,
    }
  })
}

const rarely = <T>(arbitrary: fc.Arbitrary<T>, usual: T) =>
  fc.oneof({ weight: 9, arbitrary: fc.constant(usual) }, { weight: 1, arbitrary })

const percent = (text: string) => encodeURIComponent(text.toWellFormed())
const oddText = fc.oneof(
  anyText,
  fc.constantFrom('__proto__', 'constructor', '../..', '%', ' ', "'; drop table threads"),
)

/** Mostly an id that exists. */
const anyId: fc.Arbitrary<(known: string[]) => string> = fc.oneof(
  { weight: 8, arbitrary: fc.nat().map((n) => (known: string[]) => percent(known[n % known.length] ?? '')) },
  { weight: 1, arbitrary: fc.uuid().map((id) => () => id) },
  { weight: 1, arbitrary: oddText.map((text) => () => percent(text)) },
)

function anyQuery(parameters: Json[]): fc.Arbitrary<string> {
  const known = parameters.map(({ name, schema }) =>
    fc
      .option(fc.oneof({ weight: 4, arbitrary: fitting(schema) }, { weight: 1, arbitrary: oddText }), {
        freq: 2,
      })
      .map((value) => (value === null ? [] : [`${name}=${percent(String(value))}`])),
  )
  const odd = rarely(
    fc.constantFrom<string[]>(
      ['limit=1', 'limit=2'],
      ['x=%zz'],
      ['cursor=%00'],
      ['__proto__=1'],
      ['&&=&'],
      ['q=%ff'],
    ),
    [],
  )
  return fc.tuple(...known, odd).map((parts) => parts.flat().join('&'))
}

const anyHeaders: fc.Arbitrary<Record<string, string>> = fc.constantFrom<Record<string, string>>(
  { 'content-type': 'text/plain' },
  { 'content-type': 'application/json; charset=utf-16' },
  { 'content-type': '' },
  { 'x-request-id': 'a b' },
  { 'content-encoding': 'gzip' },
  { accept: 'image/png' },
  { 'if-match': '*' },
  { 'if-match': '"1"' },
  { 'if-match': 'x' },
  { 'if-none-match': '*' },
)

/** JSON text of a value that fits the schema, one that fits but for a part of it, or text that is damaged. */
function anyBody(schema: Json): fc.Arbitrary<string | undefined> {
  const valid = fitting(schema)
  const mutated = fc.tuple(valid, fc.nat(), fc.oneof(anyJson, fc.constant(undefined)), oddText).map(mutate)
  const text = fc
    .oneof({ weight: 5, arbitrary: valid }, { weight: 3, arbitrary: mutated })
    .map((v) => JSON.stringify(v))
  const damaged = fc.tuple(text, fc.nat(), fc.nat({ max: 3 }), oddText).map(([whole = '', at, cut, put]) => {
    const place = at % (whole.length + 1)
    return whole.slice(0, place) + put + whole.slice(place + cut)
  })
  return fc.oneof({ weight: 9, arbitrary: text }, { weight: 1, arbitrary: damaged })
}

/** Puts another value in the place of one of the value's parts, takes it out, or adds one. */
function mutate([value, at, other, key]: [unknown, number, unknown, string]): unknown {
  if (typeof value !== 'object' || value === null) return other
  const keys = Object.keys(value)
  const chosen = keys[at % (keys.length + 1)]
  const copy: Json = Array.isArray(value) ? [...value] : { ...value }
  if (chosen === undefined) {
    if (Array.isArray(copy)) copy.push(other)
    else copy[key] = other
    return copy
  }
  if (at % 3 === 0) return { ...copy, [chosen]: mutate([copy[chosen], Math.floor(at / 3), other, key]) }
  if (other === undefined) delete copy[chosen]
  else copy[chosen] = other
  return copy
}

/** Values that fit a JSON Schema, as far as our document uses it. */
export function fitting(schema: Json): fc.Arbitrary<unknown> {
  if (schema.enum !== undefined) return fc.constantFrom(...schema.enum)
  if (schema.anyOf !== undefined) return fc.oneof(...schema.anyOf.map(fitting))
  switch (schema.type) {
    case 'string':
      return textOf(schema)
    case 'integer':
      return fc.integer({
        min: schema.minimum ?? -1_000,
        max: Math.min(schema.maximum ?? 1_000, 2 ** 31 - 1),
      })
    case 'number':
      return fc.double({ min: schema.minimum, max: schema.maximum, noNaN: true }).map((n) => n + 0)
    case 'boolean':
      return fc.boolean()
    case 'null':
      return fc.constant(null)
    case 'array':
      return fc.array(fitting(schema.items), { minLength: schema.minItems ?? 0, maxLength: 4 })
    case 'object':
      return objectOf(schema)
    case undefined:
      return anyJson
    default:
      throw new Error(`the document has a type that the test does not make: ${schema.type}`)
  }
}

function objectOf({ properties, required = [], minProperties = 0 }: Json): fc.Arbitrary<unknown> {
  if (properties === undefined) return fc.dictionary(fc.string(), anyJson, { maxKeys: 4 })
  const fields = Object.fromEntries(Object.entries(properties).map(([name, field]) => [name, fitting(field)]))
  return fc
    .record(fields, { requiredKeys: required })
    .filter((value) => Object.keys(value).length >= minProperties)
}

/** Names that become others in the form that is stored: longer, with an @, with a space, the same as another. */
const oddNames = fc.constantFrom(
  'ﷺ'.repeat(100),
  'a＠b',
  '¨',
  'Ａnna',
  'İ',
  'ß',
  'ﬁ',
  'constructor',
  "'; drop table users",
)

/** Few, so that they come again: a known message_id and a parent that exists matter most. */
const names = fc.constantFrom('m1', 'm2', 'm3')

function textOf({ pattern = '', minLength = 0, maxLength = 20 }: Json): fc.Arbitrary<string> {
  if (pattern.startsWith('^[0-9a-fA-F]{8}-')) return fc.uuid()
  if (pattern.startsWith('^\\d{4}-')) {
    const range = { min: new Date('0001-01-02'), max: new Date('9999-12-30'), noInvalidDate: true }
    return fc.date(range).map((date) => date.toISOString())
  }
  if (pattern === '^[0-9a-f]{64}$') return fc.constantFrom('a'.repeat(64), 'b'.repeat(64))
  if (pattern === USERNAME) return fc.oneof(names, fc.stringMatching(new RegExp(USERNAME, 'u')), oddNames)
  if (pattern === EMAIL)
    return fc
      .tuple(fc.oneof(names, oddNames), fc.constantFrom('example.com', 'a', 'ﷺ'.repeat(150)))
      .map((parts) => parts.join('@'))
  if (pattern === KEY_SCOPE)
    return fc.constantFrom('read', 'write', 'admin', 'ingest', 'flow:1', 'flow:a.b-c_d')
  if (pattern === '^(password)?$') return fc.constantFrom('', 'password')
  if (pattern === '' || pattern === '^[^\\u0000\\ud800-\\udfff]*$') {
    const storable = fc.string({ unit: 'grapheme', minLength, maxLength: Math.min(maxLength, 20) })
    return minLength > 0 ? fc.oneof(names, storable) : storable
  }
  throw new Error(`the document has a pattern that the test does not make: ${pattern}`)
}
