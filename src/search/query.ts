/** A query as it was written, taken apart for the ways in which a text is looked for. */
export type TextQuery = {
  /** For `websearch_to_tsquery`: all of it. */
  words: string
  /** The last word, which may be the beginning of one, and what stands before it in the same alternative. */
  last: { head: string; word: string } | undefined
  /** For `websearch_to_tsquery`: any of what is looked for, without what must not be there. */
  any: string
  /** For `websearch_to_tsquery`: any of what must not be there; null when there is nothing, or alternatives differ. */
  without: string | null
  /** Of the substrings of one alternative all must be there, and those of `without` must not. */
  alternatives: Alternative[]
  /** Whether it looks like a code, an identifier or a path: a part of one is no word. */
  hasCodes: boolean
}

export type Alternative = { terms: string[]; without: string[] }

// PostgreSQL refuses words of 2 kB
const MAX_WORD = 500
const MAX_BEGINNING = 50
const TOKEN = /-?"[^"]*(?:"|$)|[^\s"]+/g
const PLAIN = /^[\p{L}\p{N}\p{M}]+$/u
const LAST_WORD = /(?:^|\s)([\p{L}\p{N}\p{M}]+)\s*$/u
const LETTERS = /^[\p{L}\p{M}'’.,;:!?()]+$/u
// each of these begins a word of websearch_to_tsquery, and no word has them
const OPERATORS = /[!&|()]/g
const isNotBlank = (text: string) => text.trim() !== ''

type Token = { text: string; quoted: boolean; negated: boolean; at: number }

/** @param text storable, not blank */
export function readQuery(text: string): TextQuery {
  const tokens = [...text.matchAll(TOKEN)].map(readToken).filter(({ text: term }) => term !== '')
  const alternatives: Alternative[] = [{ terms: [], without: [] }]
  let from = 0
  for (const token of tokens) {
    const current = alternatives.at(-1) as Alternative
    if (isOr(token)) {
      alternatives.push({ terms: [], without: [] })
      from = token.at + 'or'.length
    } else if (token.negated) current.without.push(token.text)
    else current.terms.push(token.text)
  }
  const without = tokens.filter(({ negated }) => negated)
  const wanted = tokens.filter((token) => !token.negated && !isOr(token))
  return {
    words: tokens.map(toWords).join(' '),
    last: readLast(text, tokens, from),
    any: wanted.map(toWords).filter(isNotBlank).join(' or '),
    without:
      alternatives.length > 1 || without.length === 0
        ? null
        : without.map(toUnwanted).filter(isNotBlank).join(' or '),
    alternatives: alternatives.filter(({ terms }) => terms.length > 0),
    hasCodes: wanted.length === 1 || wanted.some(({ text: term, quoted }) => !quoted && !LETTERS.test(term)),
  }
}

function readToken(match: RegExpMatchArray): Token {
  const [raw] = match
  const negated = raw.length > 1 && raw.startsWith('-')
  const rest = negated ? raw.slice(1) : raw
  const quoted = rest.startsWith('"')
  return { text: rest.replaceAll('"', '').trim(), quoted, negated, at: match.index ?? 0 }
}

const isOr = ({ text, quoted, negated }: Token) => !quoted && !negated && text.toLowerCase() === 'or'

/** As `websearch_to_tsquery` shall read it: without the nests of negations that it fails on, and without long words. */
function toWords(token: Token): string {
  const words = token.text
    .replace(OPERATORS, ' ')
    .split(/\s+/)
    .map((word) => word.replace(/^-+/, ''))
    .filter((word) => word !== '' && word.length < MAX_WORD)
  const text = token.quoted ? `"${words.join(' ')}"` : words.join(' ')
  return token.negated && words.length > 0 ? `-${text}` : text
}

const toUnwanted = (token: Token) => toWords({ ...token, negated: false })

function readLast(text: string, tokens: Token[], from: number): TextQuery['last'] {
  const token = tokens.at(-1)
  if (token === undefined || token.quoted || token.negated || isOr(token)) return undefined
  const word = LAST_WORD.exec(text)?.[1]
  if (word === undefined || word !== token.text || word.length > MAX_BEGINNING || !PLAIN.test(word))
    return undefined
  return {
    head: tokens
      .filter(({ at }) => at >= from && at < token.at)
      .map(toWords)
      .join(' '),
    word,
  }
}

/**
 * What a stemmed word may look like whose beginning is this: `runni` is none of `run`, to which `running` is cut. The
 * shorter the likelier wrong, so that what is found by them must be looked at.
 */
export function stemsOf(word: string): string[] {
  const letters = [...word]
  const least = Math.max(3, letters.length - 6)
  return Array.from({ length: Math.max(0, letters.length - least) }, (_, i) =>
    letters.slice(0, least + i).join(''),
  )
}
