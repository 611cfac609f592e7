import { toStorableText } from '../../core/json.ts'
import { MAX_TITLE, type ModelUsage } from '../schema.ts'
import type { Models } from './models.ts'
import { titlePrompt } from './prompts.ts'

/** For all models that are asked for one title. */
const LIMIT_MS = 30_000
/** Of the message: a title does not need more. */
const MAX_MESSAGE_CHARS = 4_000
/** Of what a model says. */
const MAX_ANSWER_CHARS = 2_000
const MAX_WORDS = 8
const MAX_WORDS_CHARS = 80
// marks of quotations, headings, bold print and code
const AROUND = '["\'`´“”„«»‘’‚‹›「」*_#\\s]+'
const EDGES = new RegExp(`^${AROUND}|${AROUND}$`, 'gu')

/**
 * A title of 1 to 500 characters for a conversation that begins with this message: by the model for titles, else by the
 * first of the council that answers, else the message's first words. Never fails, and takes half a minute at most.
 */
export async function makeTitle(
  models: Models,
  message: string,
  { signal, record }: { signal: AbortSignal; record: (usage: ModelUsage) => void },
): Promise<string> {
  const limited = AbortSignal.any([signal, AbortSignal.timeout(LIMIT_MS)])
  const content = titlePrompt(message.slice(0, MAX_MESSAGE_CHARS))
  const question = {
    stage: 'title',
    messages: [{ role: 'user' as const, content }],
    signal: limited,
    retries: 0,
  }
  try {
    for (const model of new Set([models.titleModel, ...models.models])) {
      const asked = await models.ask({ ...question, model }, record)
      const title = 'text' in asked ? cleanTitle(asked.text) : undefined
      if (title !== undefined) return title
    }
  } catch {
    // time is up: the message has words of its own
  }
  return firstWords(message)
}

/** The first line that says something, without quotation marks and Markdown; undefined when there is none. */
export function cleanTitle(text: string): string | undefined {
  for (const line of toStorableText(text.slice(0, MAX_ANSWER_CHARS)).split(/[\r\n\u2028\u2029]+/)) {
    const title = line
      .replace(EDGES, '')
      .replace(/^title\s*:/i, '')
      .replace(EDGES, '')
      .replace(/\s+/g, ' ')
    if (title !== '') return [...title].slice(0, MAX_TITLE).join('').trim()
  }
  return undefined
}

/** The first words of a message, as many as a list has room for. */
export function firstWords(message: string): string {
  const all = toStorableText(message.slice(0, MAX_MESSAGE_CHARS)).trim().split(/\s+/)
  const plain = all.map((word) => word.replace(EDGES, '')).filter((word) => word !== '')
  const words = plain.length > 0 ? plain : all
  const text = words.slice(0, MAX_WORDS).join(' ')
  const short = [...text].slice(0, MAX_WORDS_CHARS).join('').trim()
  return words.length > MAX_WORDS || short !== text ? `${short}…` : short
}
