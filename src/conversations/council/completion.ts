import { readRetryAfter } from '../../core/network.ts'
import type { ModelUsage } from '../schema.ts'

/** Why there is no answer, in our own words: what an endpoint says may repeat a key. */
export type Failure = {
  reason: string
  /** Whether another try may do better. */
  again: boolean
  /** How long the endpoint wants to be left alone. */
  retryAfterMs?: number
}

export type Cost = Omit<ModelUsage, 'model' | 'stage'>
export type Outcome = ({ text: string } | Failure) & { usage?: Cost | undefined }

// the usual ones that pass: timeout, conflict, too early, too many requests
const PASSING = new Set([408, 409, 425, 429])
const isPassing = (status: number) => PASSING.has(status) || status >= 500

/** What a chat completion says. Endpoints are many: nothing of its shape is taken for granted. */
export function readCompletion(completion: unknown): Outcome {
  const { choices, error, usage } = asObject(completion)
  const cost = readCost(usage)
  const costs = cost === undefined ? {} : { usage: cost }
  const { message } = asObject(Array.isArray(choices) ? choices[0] : undefined)
  const { content, refusal } = asObject(message)
  const text = textOf(content) || textOf(refusal)
  if (text !== '') return { text, ...costs }
  const { code } = asObject(error)
  // an answer under 200 with an error in it: what is behind a gateway failed
  if (typeof code === 'number') return { ...ofStatus(code), ...costs }
  const reason =
    typeof completion === 'object' ? 'it answered without a text' : 'what it answered is no completion'
  return { reason, again: true, ...costs }
}

/** What made a call fail: the client's errors have a status and headers when there was an answer. */
export function describeFailure(error: unknown): Failure {
  const { status, headers } = asObject(error)
  if (typeof status === 'number') {
    const retryAfterMs =
      (status === 429 || status === 503) && headers instanceof Headers ? readRetryAfter(headers) : undefined
    return { ...ofStatus(status), ...(retryAfterMs === undefined ? {} : { retryAfterMs }) }
  }
  if (error instanceof SyntaxError) return { reason: 'what it answered is no JSON', again: true }
  const code = codeOf(error)
  return { reason: `the connection failed${code === undefined ? '' : ` (${code})`}`, again: true }
}

function ofStatus(status: number): Failure {
  const hint = status === 401 || status === 403 ? ': the key is not accepted' : ''
  return { reason: `it answered ${status}${hint}`, again: isPassing(status) }
}

/** Such as ECONNREFUSED, which is some causes down. */
function codeOf(error: unknown): string | undefined {
  for (let cause = error, depth = 0; cause instanceof Error && depth < 5; cause = cause.cause, depth++) {
    const { code } = cause as { code?: unknown }
    if (typeof code === 'string' && /^[A-Z_]+$/.test(code)) return code
  }
  return undefined
}

function textOf(content: unknown): string {
  const parts = Array.isArray(content) ? content : [{ text: content }]
  const text = parts.map((part) => asObject(part).text).filter((part) => typeof part === 'string')
  return text.join('').trim() === '' ? '' : text.join('')
}

function readCost(usage: unknown): Cost | undefined {
  const { prompt_tokens, completion_tokens, cost } = asObject(usage)
  if (!isCount(prompt_tokens) && !isCount(completion_tokens)) return undefined
  return {
    input_tokens: isCount(prompt_tokens) ? prompt_tokens : 0,
    output_tokens: isCount(completion_tokens) ? completion_tokens : 0,
    ...(typeof cost === 'number' && cost >= 0 ? { cost } : {}),
  }
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0

function asObject(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
}
