import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from '../../core/log.ts'
import type { ModelUsage } from '../schema.ts'
import { describeFailure, type Failure, type Outcome, readCompletion } from './completion.ts'
import type { Endpoint } from './endpoint.ts'

export type ChatMessage = { role: 'system' | 'user' | 'assistant'; content: string }

export type Question = {
  model: string
  /** What the answer is for: stage1, stage2, stage3 or title. */
  stage: string
  messages: ChatMessage[]
  /** Gives up, at once. */
  signal: AbortSignal
  /** Default: as configured. */
  retries?: number
}

/** What a model said, or why it said nothing, in words that may be shown. */
export type Asked = { model: string } & ({ text: string } | { reason: string })

export type Models = Pick<Endpoint, 'models' | 'chairman' | 'titleModel'> & {
  /**
   * Asks a model until it answers or is not to be asked again. Never fails because of the model.
   * @param record is told what each answer cost, also of one that was no use
   * @throws the reason of `signal` once that is aborted
   */
  ask(question: Question, record: (usage: ModelUsage) => void): Promise<Asked>
}

export type AskSettings = {
  /** Of each time that a model is asked. */
  timeoutMs: number
  retries: number
}

const FIRST_PAUSE_MS = 500
const LONGEST_PAUSE_MS = 8_000
/** A model that wants to be left alone for longer is. */
const LONGEST_WAIT_MS = 60_000

/** The models of an OpenAI-compatible endpoint. Its key is sent there alone: a redirection is a failure. */
export async function openModels(
  { kind, url, key, ...names }: Endpoint,
  settings: AskSettings,
  log: Logger,
): Promise<Models> {
  // it takes a moment to load, which who asks no model need not wait for
  const { default: OpenAI } = await import('openai')
  const client = new OpenAI({
    baseURL: url,
    apiKey: key,
    // what the environment says of them is not for this endpoint
    adminAPIKey: null,
    organization: null,
    project: null,
    webhookSecret: null,
    maxRetries: 0,
    timeout: settings.timeoutMs,
    // it would write to the console
    logLevel: 'off',
    fetchOptions: { redirect: 'manual' },
  })
  // OpenRouter says what an answer cost when it is asked to
  const more = kind === 'openrouter' ? { usage: { include: true } } : {}

  async function askOnce({ model, messages, signal }: Question): Promise<Outcome> {
    const limit = AbortSignal.timeout(settings.timeoutMs)
    const either = AbortSignal.any([signal, limit])
    try {
      const body = { model, messages, stream: false as const, ...more }
      return readCompletion(await client.chat.completions.create(body, { signal: either }))
    } catch (error) {
      signal.throwIfAborted()
      if (!limit.aborted) return describeFailure(error)
      return { reason: `no answer within ${settings.timeoutMs / 1_000} s`, again: true }
    }
  }

  return {
    ...names,
    async ask(question, record) {
      const { model, stage, signal, retries = settings.retries } = question
      for (let attempt = 0; ; attempt++) {
        signal.throwIfAborted()
        const outcome = await askOnce(question)
        const { usage } = outcome
        if (usage !== undefined) record({ model, stage, ...usage })
        if ('text' in outcome) return { model, text: outcome.text }
        const pauseMs = attempt < retries ? pauseOf(outcome, attempt) : undefined
        log.warn(
          { model, stage, reason: outcome.reason, attempt: attempt + 1, pauseMs },
          'a model gave no answer',
        )
        if (pauseMs === undefined) return { model, reason: outcome.reason }
        await sleep(pauseMs, undefined, { signal }).catch(() => signal.throwIfAborted())
      }
    },
  }
}

/** How long to wait before the next time; undefined when there is none. */
function pauseOf({ again, retryAfterMs }: Failure, attempt: number): number | undefined {
  if (!again) return undefined
  if (retryAfterMs !== undefined) return retryAfterMs <= LONGEST_WAIT_MS ? retryAfterMs : undefined
  const pause = Math.min(FIRST_PAUSE_MS * 2 ** attempt, LONGEST_PAUSE_MS)
  // servers that failed many at once are not asked by all at once
  return Math.round(pause * (0.5 + Math.random() / 2))
}
