import type { Address } from './address.ts'
import type { Snapshots } from './snapshot.ts'

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
  /** What is kept of an object, whatever became of it. */
  look(object: object): { picture: Picture; stored: Stored } | undefined
  /** Of lists, by their first element: kept for as long as that lives. */
  snapshots: WeakMap<object, Snapshots>
  /** What the object holds now, to be kept with {@link keep}; undefined when that cannot be told from its fields. */
  picture(object: object): Picture | undefined
  keep(object: object, picture: Picture, stored: Stored): void
  findText(text: string): Stored | undefined
  keepText(text: string, stored: Stored): void
}

/** Its own keys and values by identity; below them the same of everything nested, undefined when that is too much. */
export type Picture = { keys: string[]; values: unknown[]; nested: unknown[] | undefined }

const MAX_NESTED = 4_096
const MAX_DEPTH = 64
const MAX_SHAPES = 16
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
  // objects of one kind have the same keys: one list of them serves all
  const shapes: string[][] = []
  const shapeOf = (keys: string[]): string[] => {
    const known = shapes.find((shape) => isSame(shape, keys))
    if (known !== undefined) return known
    if (shapes.length >= MAX_SHAPES) shapes.shift()
    shapes.push(keys)
    return keys
  }
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
    look: (object) => objects.get(object),
    snapshots: new WeakMap(),
    picture: takePicture,
    keep: (object, picture, stored) => {
      picture.keys = shapeOf(picture.keys)
      objects.set(object, { picture, stored })
    },
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

function isSame(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((one, i) => one === b[i])
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
  const keys = Object.keys(object)
  const values = Object.values(object) as unknown[]
  const nested: unknown[] = []
  for (const value of values) {
    const seen = addNested(value, nested, 0)
    if (seen === 'opaque') return undefined
    if (seen === 'too much') return { keys, values, nested: undefined }
  }
  return { keys, values, nested }
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

function isUnchanged(object: object, { keys, values, nested }: Picture, look: Look): boolean {
  // this is done for every element at every put, and a loop of this kind is the quickest: what a prototype adds to it
  // only makes the object one that is not what it was
  let i = 0
  for (const key in object) {
    if (key !== keys[i] || !Object.is((object as Record<string, unknown>)[key], values[i])) return false
    i++
  }
  if (i !== keys.length) return false
  if (look === 'own') return true
  // too much to remember: whoever wants to be sure writes it again
  if (nested === undefined) return false
  let at = 0
  for (const value of values) {
    at = compareNested(value, nested, at)
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
