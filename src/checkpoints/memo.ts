import type { Address } from './address.ts'

/** What is known of an object or text that was stored: no need to write it again to know its address. */
export type Stored = {
  address: Address
  /** Of its stored form, in bytes. */
  size: number
}

/** How closely an object is looked at to tell whether it is still what it was. */
export type Look = 'own' | 'deep'

export type Memo = {
  /** Undefined when the object is not known or no longer what it was. */
  find(object: object, look: Look): Stored | undefined
  /** What the object holds now, to be kept with {@link keep}; undefined when that cannot be told from its fields. */
  picture(object: object): Picture | undefined
  keep(object: object, picture: Picture, stored: Stored): void
  findText(text: string): Stored | undefined
  keepText(text: string, stored: Stored): void
}

/** Its own keys and values by identity; below them the same of everything nested, undefined when that is too much. */
export type Picture = { own: unknown[]; nested: unknown[] | undefined }

const MAX_NESTED = 4_096
const MAX_DEPTH = 64
const MAX_TEXT_CHARS = 4_000_000

/**
 * Remembers where objects are stored for as long as they live, and texts for a while.
 *
 * An object whose field was replaced is noticed; with the look `deep` so is any change in the plain objects, arrays and
 * messages below it. Objects whose content is not in their fields (Map, Date, classes) are never remembered.
 */
export function createMemo(): Memo {
  const objects = new WeakMap<object, { picture: Picture; stored: Stored }>()
  let texts = new Map<string, Stored>()
  let older = new Map<string, Stored>()
  let chars = 0
  const keepText = (text: string, stored: Stored) => {
    chars += text.length
    if (chars > MAX_TEXT_CHARS / 2) {
      older = texts
      texts = new Map()
      chars = text.length
    }
    texts.set(text, stored)
  }
  return {
    find: (object, look) => {
      const found = objects.get(object)
      return found !== undefined && isUnchanged(object, found.picture, look) ? found.stored : undefined
    },
    picture: takePicture,
    keep: (object, picture, stored) => void objects.set(object, { picture, stored }),
    findText: (text) => {
      const young = texts.get(text)
      if (young !== undefined) return young
      const old = older.get(text)
      if (old !== undefined) keepText(text, old)
      return old
    },
    keepText,
  }
}

/** Whether all that an object is can be read from its enumerable fields. */
function isTransparent(object: object): boolean {
  if (Array.isArray(object)) return true
  const prototype: unknown = Object.getPrototypeOf(object)
  if (prototype === Object.prototype || prototype === null) return !('toJSON' in object)
  // LangChain's serializable classes write the fields they were made with
  return 'lc_serializable' in object && 'lc_kwargs' in object
}

function takePicture(object: object): Picture | undefined {
  if (!isTransparent(object)) return undefined
  const own = listOwn(object)
  const nested: unknown[] = []
  for (let i = 1; i < own.length; i += 2) {
    const seen = addNested(own[i], nested, 0)
    if (seen === 'opaque') return undefined
    if (seen === 'too much') return { own, nested: undefined }
  }
  return { own, nested }
}

function listOwn(object: object): unknown[] {
  const own: unknown[] = []
  for (const key of Object.keys(object)) own.push(key, (object as Record<string, unknown>)[key])
  return own
}

function addNested(value: unknown, nested: unknown[], depth: number): 'ok' | 'opaque' | 'too much' {
  if (typeof value !== 'object' || value === null) return 'ok'
  if (!isTransparent(value)) return 'opaque'
  if (depth > MAX_DEPTH || nested.length > MAX_NESTED) return 'too much'
  const keys = Object.keys(value)
  nested.push(keys.length)
  for (const key of keys) {
    const item = (value as Record<string, unknown>)[key]
    nested.push(key, item)
    const seen = addNested(item, nested, depth + 1)
    if (seen !== 'ok') return seen
  }
  return 'ok'
}

function isUnchanged(object: object, { own, nested }: Picture, look: Look): boolean {
  const keys = Object.keys(object)
  if (keys.length * 2 !== own.length) return false
  for (let i = 0; i < keys.length; i++) {
    const key = keys[i] as string
    if (key !== own[2 * i] || !Object.is((object as Record<string, unknown>)[key], own[2 * i + 1]))
      return false
  }
  if (look === 'own' || nested === undefined) return true
  let at: number = 0
  for (let i = 1; i < own.length; i += 2) {
    at = compareNested(own[i], nested, at)
    if (at < 0) return false
  }
  return true
}

/** The place in `nested` behind what belongs to the value; -1 when they differ. */
function compareNested(value: unknown, nested: unknown[], start: number): number {
  if (typeof value !== 'object' || value === null) return start
  const keys = Object.keys(value)
  if (nested[start] !== keys.length) return -1
  let at = start + 1
  for (const key of keys) {
    const item = (value as Record<string, unknown>)[key]
    if (nested[at] !== key || !Object.is(nested[at + 1], item)) return -1
    at = compareNested(item, nested, at + 2)
    if (at < 0) return -1
  }
  return at
}
