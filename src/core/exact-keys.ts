type Reviver = (this: unknown, key: string, value: unknown, context: { source?: string }) => unknown
type JsonWithSource = { parse(text: string, reviver?: Reviver): unknown; isRawJSON(value: unknown): boolean }
const json = JSON as unknown as JsonWithSource

const HIDDEN = '\ufffe'
const BACKSLASH = 0x5c
const COLON = 0x3a
const SPACE = new Set([0x20, 0x09, 0x0a, 0x0d])

/**
 * JSON.parse whose keys are those of the text. V8 (13.6, in Node 24) compares the key that it expects with the text as
 * it is written: having once read {"a":1,"\\":2} it reads {"a":1,"\n":2} as the same. So no key with an escape is shown
 * to it; such keys are spelt otherwise for the parser and set right in its result.
 * @throws SyntaxError as JSON.parse does
 */
export function parseWithExactKeys(text: string, reviver?: Reviver): unknown {
  const hidden = hasEscapedKey(text) ? hideKeys(text) : undefined
  if (hidden === undefined) return json.parse(text, reviver)
  try {
    return showKeys(json.parse(hidden, reviver))
  } catch (error) {
    // tell where it is wrong in the text that was given
    if (error instanceof SyntaxError) json.parse(text, reviver)
    throw error
  }
}

/**
 * Whether a key may have an escape: looks only at strings that have one, of which there are few among many. False for no
 * JSON with such a key.
 */
function hasEscapedKey(text: string): boolean {
  for (let at = text.indexOf('\\'); at >= 0; ) {
    const end = endOfString(text, at - 1)
    if (end < 0 || isKey(text, end)) return true
    at = text.indexOf('\\', end)
  }
  return false
}

/**
 * The text with every key that has an escape, or our mark, spelt in base64 behind the mark; undefined when no key has
 * an escape. A scan by hand: a regular expression overflows its stack on a text of megabytes.
 */
function hideKeys(text: string): string | undefined {
  const parts: string[] = []
  let copied = 0
  let escaped = false
  for (let start = text.indexOf('"'); start >= 0; ) {
    const end = endOfString(text, start)
    if (end < 0) break
    const inner = isKey(text, end) ? text.slice(start + 1, end) : ''
    if (inner.includes('\\') || inner.startsWith(HIDDEN)) {
      escaped ||= inner.includes('\\')
      parts.push(text.slice(copied, start + 1), HIDDEN, Buffer.from(inner).toString('base64url'))
      copied = end
    }
    start = text.indexOf('"', end + 1)
  }
  if (!escaped) return undefined
  parts.push(text.slice(copied))
  return parts.join('')
}

/** Where the string that starts here has its closing quote; -1 when it has none. */
function endOfString(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let backslashes = 0
    while (text.charCodeAt(end - 1 - backslashes) === BACKSLASH) backslashes++
    if (backslashes % 2 === 0) return end
  }
  return -1
}

function isKey(text: string, end: number): boolean {
  let next = end + 1
  while (SPACE.has(text.charCodeAt(next))) next++
  return text.charCodeAt(next) === COLON
}

function showKeys(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || json.isRawJSON(value)) return value
  if (Array.isArray(value)) return value.map(showKeys)
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [showKey(key), showKeys(item)]))
}

function showKey(key: string): string {
  if (!key.startsWith(HIDDEN)) return key
  return json.parse(`"${Buffer.from(key.slice(HIDDEN.length), 'base64url').toString('utf8')}"`) as string
}
