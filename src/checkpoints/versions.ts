import { randomUUID } from 'node:crypto'

// A letter comes behind every digit in the order that LangGraph compares by, so that our versions are greater than the
// texts of digits of a thread that another checkpointer began.
const MARK = 'v'
const DIGITS = 10
// the last group of a UUID is random, and made from bytes that were drawn beforehand: a draw of its own takes 50 µs
const RANDOM_DIGITS = 12

/**
 * A version above the given one, which no other call returns: two branches never share one. After a number it is a
 * number, since LangGraph compares by `>`, to which a text is neither above nor below a number: a graph that began with
 * another checkpointer's integers would stand still.
 */
export function nextVersion(current: string | number | undefined): string | number {
  const counter = countOf(current) + 1
  if (typeof current === 'number') return counter + Math.random()
  return `${MARK}${String(counter).padStart(DIGITS, '0')}.${randomUUID().slice(-RANDOM_DIGITS)}`
}

function countOf(version: string | number | undefined): number {
  if (version === undefined) return 0
  const count = typeof version === 'number' ? Math.floor(version) : Number(/^v?(\d+)/.exec(version)?.[1] ?? 0)
  return Number.isSafeInteger(count) && count > 0 ? count : 0
}
