/** The place of a character in a text. `line` and `column` count from 1, `position` from 0. */
export type TextPosition = { position: number; line: number; column: number }

/**
 * Where a text stops being JSON: the place of the first character that cannot stand there, or of the text's end when
 * it ends too early. Undefined when the text is JSON. V8 tells the place of some mistakes only.
 */
export function findJsonError(text: string): TextPosition | undefined {
  const position = errorIndex(text)
  if (position === undefined) return undefined
  const before = text.slice(0, position)
  const lineStart = before.lastIndexOf('\n') + 1
  return { position, line: before.split('\n').length, column: position - lineStart + 1 }
}

type Expected = 'value' | 'value or ]' | 'key' | 'key or }' | ':' | ', or end'

// as much of a number as there is: a whole one ends in a digit
const NUMBER = /-?(?:(?:0|[1-9]\d*)(?:\.(?:\d+(?:[eE][+-]?\d*)?)?|[eE][+-]?\d*)?)?/y
const SPACE = /[ \t\n\r]*/y
const WORDS: Record<string, string> = { t: 'true', f: 'false', n: 'null' }

/** Without recursion, for nesting may be what is wrong with the text. */
function errorIndex(text: string): number | undefined {
  const open: ('{' | '[')[] = []
  let expected: Expected = 'value'
  for (let at = skip(SPACE, text, 0); at < text.length; at = skip(SPACE, text, at)) {
    const char = text[at] as string
    const inside = open.at(-1)
    if (expected === ':') {
      if (char !== ':') return at
      expected = 'value'
      at++
    } else if (expected === ', or end') {
      if (char === ',' && inside !== undefined) expected = inside === '{' ? 'key' : 'value'
      else if ((char === '}' && inside === '{') || (char === ']' && inside === '[')) open.pop()
      else return at
      at++
    } else if ((char === '}' && expected === 'key or }') || (char === ']' && expected === 'value or ]')) {
      open.pop()
      expected = ', or end'
      at++
    } else if (expected === 'key' || expected === 'key or }') {
      const end = char === '"' ? endOfString(text, at) : ~at
      if (end < 0) return ~end
      expected = ':'
      at = end
    } else if (char === '{' || char === '[') {
      open.push(char)
      expected = char === '{' ? 'key or }' : 'value or ]'
      at++
    } else {
      const end = endOfScalar(text, at)
      if (end < 0) return ~end
      expected = ', or end'
      at = end
    }
  }
  return expected === ', or end' && open.length === 0 ? undefined : text.length
}

/** The index behind the value, or the complement of the index where it goes wrong. */
function endOfScalar(text: string, at: number): number {
  const char = text[at] as string
  if (char === '"') return endOfString(text, at)
  const word = WORDS[char]
  if (word === undefined) {
    const end = skip(NUMBER, text, at)
    return end > at && /\d/.test(text[end - 1] as string) ? end : ~end
  }
  let length = 1
  while (length < word.length && text[at + length] === word[length]) length++
  return length === word.length ? at + length : ~(at + length)
}

function endOfString(text: string, at: number): number {
  for (let i = at + 1; i < text.length; i++) {
    const char = text[i] as string
    if (char === '"') return i + 1
    if (char < ' ') return ~i
    if (char !== '\\') continue
    i++
    if (text[i] !== 'u') {
      if (!'"\\/bfnrt'.includes(text[i] ?? 'none')) return ~i
      continue
    }
    for (let digits = 0; digits < 4; digits++) {
      i++
      if (!/[0-9a-fA-F]/.test(text[i] ?? '')) return ~i
    }
  }
  return ~text.length
}

function skip(pattern: RegExp, text: string, at: number): number {
  pattern.lastIndex = at
  return pattern.test(text) ? pattern.lastIndex : at
}
