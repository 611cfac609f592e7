/** What stands in a snippet of the database for marks, and for `<`, which its parser would take for a tag. */
export const START = '\ue000'
export const STOP = '\ue001'
export const LESS = '\ue002'

const MAX_SNIPPET = 600
const AROUND = 120
const SYNTAX = /[\\^$.*+?()[\]{}|/]/g
const ENTITIES: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}

/** Text as it may stand in a page, between tags or in a quoted attribute. */
export const escapeHtml = (text: string): string =>
  text.replace(/[&<>"']/g, (char) => ENTITIES[char] as string)

/** HTML of a text with {@link START} and {@link STOP} around what is marked: escaped, one line, each mark closed. */
export function toSnippet(marked: string): string {
  const parts = marked.replaceAll(LESS, '<').split(/([\ue000\ue001])/)
  let [html, room, open] = ['', MAX_SNIPPET, false]
  for (const part of parts) {
    if (part === START || part === STOP) {
      if (open !== (part === STOP)) continue
      open = part === START
      html += open ? '<mark>' : '</mark>'
      continue
    }
    const text = cut(toLine(part), room)
    html += escapeHtml(text)
    room -= text.length
    if (room <= 0) {
      html += '…'
      break
    }
  }
  return (open ? `${html}</mark>` : html).replaceAll('<mark></mark>', '').trim()
}

/** As {@link toSnippet}, around the first of the terms in a text, each marked in any case. */
export function snippetOf(text: string, terms: readonly string[]): string {
  const plain = text.replace(/[\ue000-\ue002]/g, '')
  const wanted = terms.filter((term) => term !== '').toSorted((a, b) => b.length - a.length)
  if (wanted.length === 0) return toSnippet(cut(plain, 2 * AROUND))
  const pattern = new RegExp(wanted.map((term) => term.replace(SYNTAX, '\\$&')).join('|'), 'giu')
  const first = pattern.exec(plain)
  const start = Math.max(0, (first?.index ?? 0) - AROUND)
  const end = Math.min(plain.length, (first?.index ?? 0) + (first?.[0].length ?? 0) + AROUND)
  const part = plain.slice(start, end).toWellFormed()
  const marked = part.replace(pattern, (found) => `${START}${found}${STOP}`)
  return toSnippet(`${start > 0 ? '…' : ''}${marked}${end < plain.length ? '…' : ''}`)
}

const WORD = /[\p{L}\p{N}\p{M}]+/gu
const LEAST_ALIKE = 0.4

/** The words of a text that are spelt much like one of the terms. */
export function wordsLike(text: string, terms: readonly string[]): string[] {
  const wanted = terms.flatMap((term) => term.match(WORD) ?? []).map(trigramsOf)
  const words = new Set(text.match(WORD))
  return [...words].filter((word) => {
    const own = trigramsOf(word)
    return wanted.some((one) => {
      const common = [...one].filter((part) => own.has(part)).length
      return common / (one.size + own.size - common) >= LEAST_ALIKE
    })
  })
}

/** As pg_trgm takes them from a word. */
function trigramsOf(word: string): Set<string> {
  const padded = [...`  ${word.toLowerCase()} `]
  return new Set(padded.slice(2).map((_, i) => padded.slice(i, i + 3).join('')))
}

const toLine = (text: string) => text.toWellFormed().replace(/[\p{Cc}\s]+/gu, ' ')

/** Not in the middle of a pair. */
function cut(text: string, length: number): string {
  if (text.length <= length) return text
  const end = /[\ud800-\udbff]/.test(text.charAt(length - 1)) ? length - 1 : length
  return text.slice(0, end)
}
