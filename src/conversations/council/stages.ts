import { randomBytes, randomInt } from 'node:crypto'
import { ThreadbaseError } from '../../core/errors.ts'
import type { ModelUsage, Stage1, Stage2, Stage3 } from '../schema.ts'
import type { Asked, ChatMessage, Models } from './models.ts'
import { chairmanPrompt, rankingPrompt } from './prompts.ts'
import { type AggregateRankings, aggregateRankings, labelAt, parseRanking } from './ranking.ts'

/** One question to the council. */
export type Inquiry = {
  models: Models
  content: string
  /** What was asked and answered before. */
  history: ChatMessage[]
  signal: AbortSignal
  record(usage: ModelUsage): void
  /** Is told which models gave no answer. */
  note(failure: ModelFailure): void
}

/** A model that gave no answer in a stage. */
export type ModelFailure = { model: string; stage: string; reason: string }

export type Ranked = {
  stage2: Stage2
  label_to_model: Record<string, string>
  aggregate_rankings: AggregateRankings
}

/**
 * Stage 1: what each model answers, all at once, without those that give no answer.
 * @throws unavailable when none answers
 */
export async function answerAll(inquiry: Inquiry): Promise<Stage1> {
  const { models, history, content } = inquiry
  const asked = await askAll(inquiry, 'stage1', models.models, [...history, { role: 'user', content }])
  const stage1 = asked.flatMap((one) => ('text' in one ? [{ model: one.model, response: one.text }] : []))
  if (stage1.length === 0) throw noAnswer(asked)
  return stage1
}

/**
 * Stage 2: how those that answered rank the answers, which they see in a new order and without names. One answer needs no
 * ranking; when nobody ranks, there is none, and the chairman goes by the answers alone.
 */
export async function rankAll(inquiry: Inquiry, stage1: Stage1): Promise<Ranked> {
  const answers = shuffle(stage1).map((answer, i) => ({ ...answer, label: labelAt(i) }))
  const label_to_model = Object.fromEntries(answers.map(({ label, model }) => [label, model]))
  if (answers.length < 2) return { stage2: [], label_to_model, aggregate_rankings: [] }
  const prompt = rankingPrompt(inquiry.content, answers, newMark())
  const asked = await askAll(
    inquiry,
    'stage2',
    stage1.map(({ model }) => model),
    [...inquiry.history, { role: 'user', content: prompt }],
  )
  const labels = Object.keys(label_to_model)
  const stage2 = asked.flatMap((one) =>
    'text' in one
      ? [{ model: one.model, ranking: one.text, parsed_ranking: parseRanking(one.text, labels) }]
      : [],
  )
  return { stage2, label_to_model, aggregate_rankings: aggregateRankings(stage2, label_to_model) }
}

/**
 * Stage 3: the chairman's answer. When the chairman gives none, the model that was ranked best writes it, and so on:
 * `chairman` and `note` say so.
 * @throws unavailable when none answers
 */
export async function conclude(inquiry: Inquiry, stage1: Stage1, ranked: Ranked): Promise<Stage3> {
  const { models, history, content, record, note, signal } = inquiry
  const prompt = chairmanPrompt(content, stage1, ranked.stage2, ranked.label_to_model, newMark())
  const messages: ChatMessage[] = [...history, { role: 'user', content: prompt }]
  const byRank = ranked.aggregate_rankings.map(({ model }) => model)
  const { chairman } = models
  const failed: Asked[] = []
  for (const model of new Set([chairman, ...byRank, ...stage1.map((answer) => answer.model)])) {
    const asked = await models.ask({ model, stage: 'stage3', messages, signal }, record)
    if ('text' in asked) {
      if (model === chairman) return { model, response: asked.text }
      const why = `${chairman} is the chairman and gave no answer; ${model} wrote this one`
      return { model, response: asked.text, chairman, note: why }
    }
    failed.push(asked)
    note({ ...asked, stage: 'stage3' })
  }
  throw noAnswer(failed)
}

async function askAll(
  { models, signal, record, note }: Inquiry,
  stage: string,
  names: readonly string[],
  messages: ChatMessage[],
): Promise<Asked[]> {
  const asked = await Promise.all(
    names.map((model) => models.ask({ model, stage, messages, signal }, record)),
  )
  for (const one of asked) if ('reason' in one) note({ ...one, stage })
  return asked
}

function noAnswer(asked: readonly Asked[]): ThreadbaseError {
  const models = asked.flatMap((one) => ('reason' in one ? [one] : []))
  const reasons = models.map(({ model, reason }) => `${model}: ${reason}`).join('; ')
  const message = `no model answered (${reasons}); the question is kept: ask it again to go on`
  return new ThreadbaseError('unavailable', message, { models })
}

/** A text that nobody could know who answered before it was made. */
const newMark = () => randomBytes(8).toString('hex')

/** Fisher and Yates. */
function shuffle<T>(items: readonly T[]): T[] {
  const result = [...items]
  for (let i = result.length - 1; i > 0; i--) {
    const j = randomInt(i + 1)
    const item = result[i] as T
    result[i] = result[j] as T
    result[j] = item
  }
  return result
}
