import { isThreadbaseError } from '../core/errors.ts'
import { parseJson } from '../core/json.ts'
import { fromChatgpt } from './from-chatgpt.ts'
import { fromOpenai } from './from-openai.ts'
import { createContentIds } from './ids.ts'
import { type Input, isDamagedGzip } from './input.ts'
import type { Conversation, Refusal } from './schema.ts'
import { type Piece, splitArray, splitLines } from './split.ts'

export type ReadItem = { conversation: Conversation; chars: number } | { refusal: Refusal }

/**
 * The conversations of an input, one at a time, with what could not be read in between. Gzip that is cut off or
 * damaged is a refusal at the place where it ends.
 * @throws invalid_input when the input has another format altogether, and what reading the file throws
 */
export async function* readConversations({ format, chunks }: Input): AsyncGenerator<ReadItem> {
  const contentId = createContentIds()
  const toConversation = format === 'jsonl' ? fromOpenai : fromChatgpt
  let n = 0
  try {
    for await (const piece of format === 'jsonl' ? splitLines(chunks) : splitArray(chunks)) {
      n = piece.n
      yield readPiece(piece, (value) => toConversation(value, piece.n, contentId))
    }
  } catch (error) {
    if (!isDamagedGzip(error)) throw error
    yield { refusal: { n: n + 1, reason: `the compressed file is damaged here: ${reasonOf(error)}` } }
  }
}

function readPiece(piece: Piece, toConversation: (value: unknown) => Conversation): ReadItem {
  const { n } = piece
  if ('problem' in piece) return { refusal: { n, reason: piece.problem } }
  let value: unknown
  try {
    value = parseJson(piece.text)
  } catch (error) {
    return { refusal: { n, reason: `not valid JSON: ${reasonOf(error)}` } }
  }
  try {
    return { conversation: toConversation(value), chars: piece.text.length }
  } catch (error) {
    if (!isThreadbaseError(error)) throw error
    return { refusal: { n, reason: reasonOf(error) } }
  }
}

const MAX_REASON = 300

export function reasonOf(error: unknown): string {
  // one line without control characters, whatever of the input the message quotes
  const text = (error instanceof Error ? error.message : String(error)).replace(/[\p{Cc}\s]+/gu, ' ').trim()
  return text.length > MAX_REASON ? `${text.slice(0, MAX_REASON)}…` : text
}
