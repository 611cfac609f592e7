import { hash } from 'node:crypto'
import { ThreadbaseError } from './errors.ts'
import { parseWithExactKeys } from './exact-keys.ts'

/** Deeper nesting than this is refused: PostgreSQL and every client would overflow their stack somewhere. */
export const MAX_JSON_DEPTH = 500

// Only a text with one of these can hold a number that a double would change: any 15 digits fit, dot or no dot. Numbers
// stand at the start, or behind [ : , or space: the digits of a UUID do not count. No number goes on with a digit after
// -0. What stands before is looked at last: digits are rare, spaces are not.
const MAY_LOSE_DIGITS = /\d(?<=(?:^|[[:,\s])-?\d)(?:[\d.]{15}|[\d.]*[eE][-+\d])|-0(?<=(?:^|[[:,\s])-0)(?!\d)/

/**
 * JSON.parse that loses no digit and confuses no keys: a number that a double cannot hold (a 64-bit id, 1e400) becomes a
 * `JSON.rawJSON` object, which `JSON.stringify` writes out again as it was. All others are plain numbers.
 * @throws SyntaxError as JSON.parse does; invalid_input when the text is nested so deep that the stack overflows.
 */
export function parseJson(text: string): unknown {
  try {
    return parseWithExactKeys(text, MAY_LOSE_DIGITS.test(text) ? keepExactNumbers : undefined)
  } catch (error) {
    throw error instanceof RangeError ? tooDeep() : error
  }
}

type ReviverContext = { source?: string }
type JsonWithRaw = typeof JSON & {
  rawJSON(text: string): object
  isRawJSON(value: unknown): value is { rawJSON: string }
}
const rawJson = JSON as JsonWithRaw

function keepExactNumbers(_key: string, value: unknown, context?: ReviverContext): unknown {
  const source = context?.source
  if (typeof value !== 'number' || source === undefined) return value
  return isExact(value, source) ? value : rawJson.rawJSON(source)
}

function isExact(value: number, source: string): boolean {
  if (Object.is(value, -0)) return false
  return Number.isFinite(value) && normalizeDecimal(String(value)) === normalizeDecimal(source)
}

/** Sign, digits and exponent without leading or trailing zeros: equal texts are equal numbers. */
function normalizeDecimal(text: string): string {
  const match = /^(-?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d+))?$/.exec(text)
  if (match === null) return text
  const [, sign, whole = '', fraction = '', exponent = '0'] = match
  const digits = (whole + fraction).replace(/^0+/, '')
  const significant = digits.replace(/0+$/, '')
  if (significant === '') return '0'
  const scale = Number(exponent) - fraction.length + (digits.length - significant.length)
  return `${sign}${significant}e${scale}`
}

/** Keys sorted at every level: equal values, equal texts. A missing value (undefined) is null. */
export function canonicalJson(value: unknown): string {
  // messages are digested one by one: what JSON.stringify can write is not written piece by piece
  const sorted = sortKeys(value, 0)
  return sorted === OTHER ? writeCanonical(value, 0) : (JSON.stringify(sorted) ?? 'null')
}

const OTHER = Symbol()
const [ZERO, NINE] = [0x30, 0x39]

/** The value with sorted keys; itself when they are. OTHER where JSON.stringify would not write it as {@link writeCanonical} does. */
function sortKeys(value: unknown, depth: number): unknown {
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return value
  if (value === null) return value
  if (typeof value !== 'object' || depth > MAX_JSON_DEPTH) return OTHER
  if (Array.isArray(value)) return sortItems(value, depth + 1)
  // no raw number, date or the like
  return Object.getPrototypeOf(value) === Object.prototype
    ? sortFields(value as Record<string, unknown>, depth + 1)
    : OTHER
}

function sortItems(list: unknown[], depth: number): unknown {
  let copy = list
  for (let i = 0; i < list.length; i++) {
    const item = sortKeys(list[i], depth)
    if (item === OTHER) return OTHER
    if (item === list[i]) continue
    if (copy === list) copy = list.slice()
    copy[i] = item
  }
  return copy
}

function sortFields(fields: Record<string, unknown>, depth: number): unknown {
  const keys = Object.keys(fields)
  let same = true
  for (let i = 0; i < keys.length; i++) {
    const key = keys[i] as string
    const first = key.charCodeAt(0)
    // an object would put such keys elsewhere
    if ((first >= ZERO && first <= NINE) || key === '__proto__' || key === 'toJSON') return OTHER
    if (i > 0 && key < (keys[i - 1] as string)) same = false
  }
  if (!same) keys.sort()
  let copy: Record<string, unknown> | undefined = same ? undefined : {}
  for (const key of keys) {
    const value = fields[key]
    const item = sortKeys(value, depth)
    if (item === OTHER) return OTHER
    if (copy === undefined && item !== value) copy = { ...fields }
    if (copy !== undefined) copy[key] = item
  }
  return copy ?? fields
}

function writeCanonical(value: unknown, depth: number): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null'
  if (depth > MAX_JSON_DEPTH) throw tooDeep()
  if (rawJson.isRawJSON(value)) return writeRaw(value.rawJSON)
  if (typeof (value as { toJSON?: unknown }).toJSON === 'function') {
    return writeCanonical(JSON.parse(JSON.stringify(value)), depth)
  }
  if (Array.isArray(value)) return `[${value.map((item) => writeCanonical(item, depth + 1)).join()}]`
  const entries = Object.entries(value)
    .filter(([, item]) => item !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
  return `{${entries.map(([key, item]) => `${JSON.stringify(key)}:${writeCanonical(item, depth + 1)}`).join()}}`
}

/** A caller's raw text of a number that a double holds is that number. */
function writeRaw(text: string): string {
  const value = parseJson(text)
  return rawJson.isRawJSON(value) ? normalizeDecimal(value.rawJSON) : JSON.stringify(value)
}

/** The first 16 bytes of the SHA-256 of the canonical JSON, as 32 hex digits: tells equal content from other content. */
export function digestJson(value: unknown): string {
  return hash('sha256', canonicalJson(value), 'hex').slice(0, 32)
}

/**
 * Text for a `json` column. PostgreSQL keeps such a text byte for byte, so key order, NUL (`\u0000`), lone
 * surrogates and every digit survive.
 * @throws invalid_input when the value has no JSON form or is nested deeper than {@link MAX_JSON_DEPTH}.
 */
export function encodeJson(value: unknown): string {
  let text: string | undefined
  try {
    text = JSON.stringify(value)
  } catch (cause) {
    if (cause instanceof RangeError) throw tooDeep()
    throw new ThreadbaseError('invalid_input', 'the value cannot be written as JSON', undefined, { cause })
  }
  if (text === undefined) throw new ThreadbaseError('invalid_input', 'the value cannot be written as JSON')
  if (text.length > MAX_JSON_DEPTH) assertDepth(value, 0)
  return text
}

function assertDepth(value: unknown, depth: number): void {
  if (typeof value !== 'object' || value === null) return
  if (depth > MAX_JSON_DEPTH) throw tooDeep()
  for (const item of Object.values(value)) assertDepth(item, depth + 1)
}

function tooDeep(): ThreadbaseError {
  return new ThreadbaseError('invalid_input', `JSON is nested deeper than ${MAX_JSON_DEPTH} levels`, {
    limit: MAX_JSON_DEPTH,
  })
}

// `jsonb` refuses NUL and lone surrogates, and spells every number out: a few bytes of 1e100000 would come back as
// 100 KB. What it cannot hold is written behind U+FFFF, a code point that no text contains by Unicode's own rules, and
// U+FFFF itself in the same way: as four hex digits, or for a number as `n` and its text.
const MARK = '\uffff'
const MARKED_NUMBER = `${MARK}n`
const UNSTORABLE = /[\0\uffff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g
const MAY_NEED_ENCODING = /\\u0000|\\u[dD][89a-fA-F]|\uffff|\d[eE][+-]?\d\d/
const MAX_EXPONENT = 40

/**
 * Text for a `jsonb` column: as {@link encodeJson}, with what jsonb cannot hold written in a form that it can.
 * {@link decodeJsonb} undoes it.
 */
export function encodeJsonb(value: unknown): string {
  const text = encodeJson(value)
  return MAY_NEED_ENCODING.test(text) ? encodeJson(mapScalars(parseJson(text), encodeScalar)) : text
}

/** The value of a `jsonb` column's text, as it was given to {@link encodeJsonb}. */
export function decodeJsonb(text: string): unknown {
  const value = parseJson(text)
  return text.includes(MARK) ? mapScalars(value, decodeScalar) : value
}

/** Any text as a `text` column can hold it: NUL and lone surrogates as {@link encodeJsonb} writes them. {@link decodeText} undoes it. */
export function encodeText(text: string): string {
  return text.replace(UNSTORABLE, (char) => `${MARK}${char.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** The text that was given to {@link encodeText}. */
export function decodeText(text: string): string {
  return text.replace(/\uffff([0-9a-f]{4})/g, (_, code: string) =>
    String.fromCharCode(Number.parseInt(code, 16)),
  )
}

/** Text as a `text` column can hold it, for what is derived and searched: NUL and lone surrogates become U+FFFD. */
export function toStorableText(text: string): string {
  return text.isWellFormed() && !text.includes('\0') ? text : text.toWellFormed().replaceAll('\0', '\ufffd')
}

function encodeScalar(value: unknown): unknown {
  if (typeof value === 'string') return encodeText(value)
  if (typeof value !== 'number' && !rawJson.isRawJSON(value)) return value
  const text = JSON.stringify(value)
  const exponent = /[eE]([+-]?\d+)$/.exec(text)?.[1]
  return exponent !== undefined && Math.abs(Number(exponent)) > MAX_EXPONENT
    ? `${MARKED_NUMBER}${text}`
    : value
}

function decodeScalar(value: unknown): unknown {
  if (typeof value !== 'string') return value
  if (value.startsWith(MARKED_NUMBER)) return parseJson(value.slice(MARKED_NUMBER.length))
  return decodeText(value)
}

/** The value with `map` over its texts, numbers and keys. */
function mapScalars(value: unknown, map: (value: unknown) => unknown): unknown {
  if (typeof value !== 'object' || value === null || rawJson.isRawJSON(value)) return map(value)
  if (Array.isArray(value)) return value.map((item) => mapScalars(item, map))
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [map(key), mapScalars(item, map)]))
}

/** A number that no double can hold, as {@link parseJson} gives it. */
export function isRawNumber(value: unknown): value is { rawJSON: string } {
  return rawJson.isRawJSON(value)
}
