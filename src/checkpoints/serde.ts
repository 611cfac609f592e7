import * as messages from '@langchain/core/messages'
import { DeltaSnapshot, JsonPlusSerializer, type SerializerProtocol } from '@langchain/langgraph-checkpoint'
import { ThreadbaseError } from '../core/errors.ts'
import { parseWithExactKeys } from '../core/exact-keys.ts'

/** A value as a serializer wrote it. */
export type Dumped = { type: string; data: Uint8Array }

/** True for LangGraph's own serializer, whose form we know: a value's JSON can stand in a list of others. */
export function isStock(serde: SerializerProtocol): boolean {
  return Object.getPrototypeOf(serde) === JsonPlusSerializer.prototype && Object.keys(serde).length === 0
}

// what LangGraph's serializer writes in the place of anything that JSON refuses
const GAVE_UP = '"[unable to serialize, circular reference is too complex to analyze]"'

/**
 * The value in the serializer's form. A serializer that works synchronously, as LangGraph's own, has read the value
 * when this returns: what happens to it later does not matter.
 * @throws invalid_input naming `field` when it has no such form
 */
export async function dump(serde: SerializerProtocol, value: unknown, field: string): Promise<Dumped> {
  if (typeof value === 'function' || typeof value === 'symbol')
    throw unserialisable(field, `a ${typeof value}`)
  let dumped: [string, Uint8Array]
  try {
    dumped = await serde.dumpsTyped(value)
  } catch (cause) {
    throw unserialisable(field, 'what the serializer refuses', cause)
  }
  const [type, data] = dumped
  if (type === 'json' && data.length === GAVE_UP.length && value !== JSON.parse(GAVE_UP)) {
    if (Buffer.from(data).toString() === GAVE_UP)
      throw unserialisable(field, 'what JSON cannot hold, such as a bigint')
  }
  return { type, data }
}

function unserialisable(field: string, what: string, cause?: unknown): ThreadbaseError {
  return new ThreadbaseError(
    'invalid_input',
    `${field} cannot be stored: it is or holds ${what}`,
    { field },
    { cause },
  )
}

/** The value of a stored form. @param stock reads what LangGraph's serializer wrote, without waiting where possible */
export async function load(
  serde: SerializerProtocol,
  stock: boolean,
  type: string,
  body: string | Uint8Array,
): Promise<unknown> {
  // a copy of its own, without the slack that a driver's buffer has
  if (type === 'bytes' && stock)
    return typeof body === 'string' ? new TextEncoder().encode(body) : new Uint8Array(body)
  if (!stock || type !== 'json') return serde.loadsTyped(type, body)
  const text = toText(body)
  const value = loadJson(text)
  return value === SLOW ? serde.loadsTyped(type, text) : value
}

/** Of bytes that are UTF-8. */
export function toText(body: string | Uint8Array): string {
  return typeof body === 'string'
    ? body
    : Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString()
}

/** Says that only LangGraph's serializer itself can read a text. */
export const SLOW: unique symbol = Symbol('slow')

const MAY_HAVE_RECORDS = /"lc"|\\u00[46]/
const MAY_HAVE_ESCAPED_KEYS = /[{,]\s*"[^"\\]*\\/

/**
 * What JsonPlusSerializer reads from a text, in one synchronous pass: its own makes a promise for every node, and for
 * every message writes and parses it once more. SLOW when there is something in it that this does not know.
 */
export function loadJson(text: string): unknown {
  const value = parseText(text)
  return MAY_HAVE_RECORDS.test(text) ? revive(value) : value
}

/** As it is, without looking for records. */
export function parseText(text: string): unknown {
  // to look for a backslash is nothing, to look for keys takes as long as to parse
  return text.includes('\\') && MAY_HAVE_ESCAPED_KEYS.test(text) ? parseWithExactKeys(text) : JSON.parse(text)
}

/** As {@link loadJson}, of a value that is parsed already. Changes it in place. */
export function revive(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const revived = revive(value[i])
      if (revived === SLOW) return SLOW
      value[i] = revived
    }
    return value
  }
  return reviveObject(value as Record<string, unknown>)
}

function reviveObject(record: Record<string, unknown>): unknown {
  if (record.lc === 1 && record.type === 'constructor' && Array.isArray(record.id))
    return reviveMessage(record)
  for (const key of Object.keys(record)) {
    const item = record[key]
    if (typeof item !== 'object' || item === null) continue
    const revived = revive(item)
    if (revived === SLOW) return SLOW
    if (revived !== item) record[key] = revived
  }
  if (record.lc !== 2) return record
  if (record.type === 'undefined') return undefined
  if (record.type === 'delta_snapshot' && Object.hasOwn(record, 'value'))
    return new DeltaSnapshot(record.value)
  return record.type === 'constructor' ? (construct(record) ?? record) : record
}

/** The closed set of classes that the serializer writes; undefined for anything else, which stays what it is. */
function construct({ id, method, args }: Record<string, unknown>): unknown {
  if (!Array.isArray(id) || id.length !== 1 || !Array.isArray(args)) return undefined
  const [name] = id
  const noMethod = method === undefined || method === null
  const [first] = args
  if (name === 'RegExp' && noMethod && args.length === 2) return toRegExp(args)
  if (args.length !== 1) return undefined
  if (name === 'Error' && noMethod && typeof first === 'string') return new Error(first)
  if (!Array.isArray(first)) return undefined
  if (name === 'Set' && noMethod) return new Set(first)
  if (name === 'Map' && noMethod && first.every((one) => Array.isArray(one) && one.length === 2))
    return new Map(first)
  if (name === 'Uint8Array' && (noMethod || method === 'from') && first.every(isByte))
    return new Uint8Array(first)
  return undefined
}

const isByte = (item: unknown) => Number.isInteger(item) && (item as number) >= 0 && (item as number) <= 255

function toRegExp([source, flags]: unknown[]): RegExp | undefined {
  if (typeof source !== 'string' || typeof flags !== 'string') return undefined
  try {
    return new RegExp(source, flags)
  } catch {
    return undefined
  }
}

type MessageClass = { new (fields: object): object; prototype: object }

// instanceof is answered by a mark that only instances carry
const isMessageClass = (value: unknown): value is MessageClass =>
  typeof value === 'function' &&
  Object.prototype.isPrototypeOf.call(messages.BaseMessage.prototype, value.prototype as object)

/** How core's load() makes a message, for those whose arguments are plain JSON. */
function reviveMessage({ id, kwargs }: Record<string, unknown>): unknown {
  const [library, module, name] = id as unknown[]
  const known = (id as unknown[]).length === 3 && library === 'langchain_core' && module === 'messages'
  if (!known || typeof name !== 'string' || typeof kwargs !== 'object' || kwargs === null) return SLOW
  const Class: unknown = Object.hasOwn(messages, name)
    ? (messages as Record<string, unknown>)[name]
    : undefined
  if (!isMessageClass(Class)) return SLOW
  if (!isPlain(kwargs, 2)) return SLOW
  const names = namesOf(Class)
  const fields: Record<string, unknown> = {}
  for (const key of Object.keys(kwargs)) {
    fields[nameOf(names, key)] = (kwargs as Record<string, unknown>)[key]
  }
  return new Class(fields)
}

const MAX_NAMES = 1_000

function nameOf(names: Map<string, string>, key: string): string {
  const known = names.get(key)
  if (known !== undefined) return known
  const name = camelCase(key)
  if (names.size < MAX_NAMES) names.set(key, name)
  return name
}

// load() refuses what is nested deeper
const MAX_DEPTH = 50

/**
 * Whether a message's arguments are plain JSON. Takes out what was undefined, as the library does by writing them once
 * more before it makes the message.
 */
function isPlain(value: unknown, depth: number): boolean {
  if (typeof value !== 'object' || value === null) return true
  if (depth > MAX_DEPTH) return false
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      if (isUndefined(value[i])) value[i] = null
      else if (!isPlain(value[i], depth + 1)) return false
    }
    return true
  }
  const record = value as Record<string, unknown>
  if ('lc' in record || '__lc_escaped__' in record || Object.hasOwn(record, '__proto__')) return false
  for (const key of Object.keys(record)) {
    if (isUndefined(record[key])) delete record[key]
    else if (!isPlain(record[key], depth + 1)) return false
  }
  return true
}

const isUndefined = (value: unknown): boolean =>
  typeof value === 'object' &&
  value !== null &&
  'lc' in value &&
  value.lc === 2 &&
  'type' in value &&
  value.type === 'undefined'

const names = new WeakMap<MessageClass, Map<string, string>>()

/** From the name in JSON to the name of the argument: the aliases of the class, and what was seen of others. */
function namesOf(Class: MessageClass): Map<string, string> {
  const known = names.get(Class)
  if (known !== undefined) return known
  const all: Record<string, string> = {}
  let current: { prototype?: object } | null = Class
  while (current?.prototype !== undefined) {
    Object.assign(all, Reflect.get(current.prototype, 'lc_aliases'))
    current = Object.getPrototypeOf(current)
  }
  const inverted = new Map(Object.entries(all).map(([key, value]) => [value, key]))
  names.set(Class, inverted)
  return inverted
}

function camelCase(key: string): string {
  const trimmed = key.trim()
  if (!/[-_\s]/.test(trimmed)) return trimmed
  return trimmed
    .replace(/[-_\s]+/g, '_')
    .toLowerCase()
    .replace(/_+([a-z0-9])/g, (_, char: string) => char.toUpperCase())
}
