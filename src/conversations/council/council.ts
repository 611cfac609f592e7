import { setTimeout as sleep } from 'node:timers/promises'
import { Type } from 'typebox'
import { ThreadbaseError } from '../../core/errors.ts'
import type { Logger } from '../../core/log.ts'
import { type Scope, userOf } from '../../core/scope.ts'
import { parseInput } from '../../core/validate.ts'
import { requireConversationId } from '../ids.ts'
import {
  type CouncilAnswer,
  type CouncilMetadata,
  NEW_TITLE,
  type Stage1,
  type Stage2,
  type Stage3,
} from '../schema.ts'
import type { ConversationStore } from '../store.ts'
import { type Endpoint, findEndpoint, type ModelSettings, type UserKeys } from './endpoint.ts'
import { type AskSettings, openModels } from './models.ts'
import { type OpenNotes, openNotes } from './notes.ts'
import { giveBack, pay, type QuestionCounter, settle } from './payment.ts'
import { toHistory } from './prompts.ts'
import { answerAll, conclude, type Inquiry, rankAll } from './stages.ts'
import { makeTitle } from './title.ts'
import { type HeldTurn, holdTurn } from './turn.ts'

export type { QuestionCounter } from './payment.ts'

export type CouncilSettings = ModelSettings & AskSettings

export type CouncilParts = {
  conversations: Pick<ConversationStore, 'getConversation' | 'updateConversationTitle' | 'turns'>
  usage: QuestionCounter
  /** Undefined where users have no keys of their own. */
  credentials: UserKeys | undefined
  log: Logger
  settings: CouncilSettings
  /** After so many seconds without a word of the process that answers, another may. Default 10. */
  leaseS?: number
}

/** What is told of an answer while it is made; all of it is stored before it is told. */
export type CouncilEvent =
  | { type: 'stage1_start' | 'stage2_start' | 'stage3_start' | 'complete' }
  | { type: 'stage1_complete'; data: Stage1 }
  | { type: 'stage2_complete'; data: Stage2; metadata: CouncilMetadata }
  | { type: 'stage3_complete'; data: Stage3 }
  | { type: 'title_complete'; data: { title: string } }

export type AskOptions = {
  /** Is told of each step. What it throws is of no concern to the answer. */
  onEvent?: (event: CouncilEvent) => void
  /** Gives the answer up; what its stages have so far is kept for who asks again. */
  signal?: AbortSignal
}

export type Council = ReturnType<typeof createCouncil>

const DEFAULT_LEASE_S = 10
/** Of an answer that is given up, to be kept; a database that is away must not hold the server. */
const GIVE_UP_MS = 5_000
const MAX_CONTENT = 1_000_000
// something to answer
const Content = Type.String({ maxLength: MAX_CONTENT, pattern: '\\S' })
/** The body of a question. */
export const NewQuestion = Type.Object(
  {
    content: Type.String({
      minLength: 1,
      maxLength: MAX_CONTENT,
      description: 'The question. The same as an unanswered newest one goes on where that stopped.',
    }),
  },
  { additionalProperties: false },
)

/** Asks several models one question, lets them rank each other's answers without names, and has a chairman write the final one. */
export function createCouncil(parts: CouncilParts) {
  const { conversations, log, leaseS = DEFAULT_LEASE_S } = parts
  const closing = new AbortController()
  const running = new Set<Promise<unknown>>()

  async function answer(scope: Scope, id: string, content: string, options: AskOptions) {
    const { onEvent = () => {}, signal } = options
    const before = await conversations.getConversation(scope, id)
    const endpoint = await findEndpoint(scope, parts.settings, parts.credentials)
    const payment = await pay(parts.usage, scope, before, content)
    const lost = new AbortController()
    const held = await holdTurn(
      { ...parts, turns: conversations.turns, leaseS },
      { scope, id, content },
      (error) => lost.abort(error),
    ).catch(async (error) => {
      await giveBack(parts, scope, payment)
      throw error
    })
    const signals = [closing.signal, lost.signal, ...(signal === undefined ? [] : [signal])]
    try {
      await settle(parts, scope, payment, held)
      const asking = { scope, id, held, endpoint, signal: AbortSignal.any(signals) }
      return await answerTurn(parts, asking, (event) => {
        try {
          onEvent(event)
        } catch (error) {
          log.warn({ err: error }, 'who listens to a council failed')
        }
      })
    } catch (error) {
      await held.release()
      throw error
    }
  }

  return {
    /**
     * Asks the council, in a conversation of the user. It goes on whoever listens: what `onEvent` tells is stored before.
     * Who asks the unanswered newest question again goes on with what its stages have, and pays nothing.
     * @param content 1 to 1,000,000 characters, not all of them spaces
     * @throws not_found; conflict while a question of this conversation is answered; quota_exceeded; unavailable without a
     *   key for models, when none of them answers (the question and the stages so far are kept), and on closing
     */
    async ask(scope: Scope, id: string, content: string, options: AskOptions = {}): Promise<CouncilAnswer> {
      userOf(scope)
      requireConversationId(id)
      parseInput(Content, content, 'content')
      closing.signal.throwIfAborted()
      const asked = answer(scope, id, content, options)
      const settled = asked.then(
        () => {},
        () => {},
      )
      running.add(settled)
      void settled.then(() => running.delete(settled))
      return asked
    },

    /** Settles when no answer is under way. @internal */
    async idle(): Promise<void> {
      while (running.size > 0) await Promise.all(running)
    },

    /** Gives up what is under way, which is kept for who asks again. @internal */
    async close(): Promise<void> {
      closing.abort(
        new ThreadbaseError('unavailable', 'the server is shutting down: ask the same again, and it goes on'),
      )
      await Promise.race([Promise.all(running), sleep(GIVE_UP_MS, undefined, { ref: false })])
    },
  }
}

type Asking = { scope: Scope; id: string; held: HeldTurn; endpoint: Endpoint; signal: AbortSignal }
type Tell = (event: CouncilEvent) => void

/** The answer to a question that is held and paid for: its stages, then the title of a conversation that has none. */
async function answerTurn(parts: CouncilParts, asking: Asking, tell: Tell): Promise<CouncilAnswer> {
  const { conversations, settings, log } = parts
  const { scope, id, held, endpoint } = asking
  const { messages, title } = await conversations.getConversation(scope, id)
  const models = await openModels(endpoint, settings, log)
  const notes = openNotes(held.turn)
  const ended = new AbortController()
  const inquiry: Inquiry = {
    models,
    content: held.turn.content,
    history: toHistory(messages.slice(0, -1)),
    signal: AbortSignal.any([asking.signal, ended.signal]),
    record: (usage) => notes.add({ usage: [...(notes.all().usage ?? []), usage] }),
    note: (failure) => notes.add({ failures: [...(notes.all().failures ?? []), failure] }),
  }
  const naming = held.first && title === NEW_TITLE ? makeTitle(models, inquiry.content, inquiry) : undefined
  try {
    const stages = await goThroughStages(inquiry, held, notes, tell)
    // the title's cost is part of the answer's
    const newTitle = await naming
    const answer: CouncilAnswer = { ...stages, metadata: notes.all() }
    // first: nobody would name the conversation when the process ends behind its answer
    const isNamed = newTitle !== undefined && (await saveTitle(parts, asking, newTitle))
    await held.finish(answer)
    tell({ type: 'stage3_complete', data: answer.stage3 })
    if (isNamed) tell({ type: 'title_complete', data: { title: newTitle } })
    tell({ type: 'complete' })
    return answer
  } finally {
    ended.abort()
  }
}

async function goThroughStages(inquiry: Inquiry, { turn, save }: HeldTurn, notes: OpenNotes, tell: Tell) {
  tell({ type: 'stage1_start' })
  if (turn.stage1 === undefined) {
    turn.stage1 = await answerAll(inquiry)
    await save()
  }
  const { stage1 } = turn
  tell({ type: 'stage1_complete', data: stage1 })
  tell({ type: 'stage2_start' })
  if (turn.stage2 === undefined) {
    const { stage2, ...ranking } = await rankAll(inquiry, stage1)
    notes.add(ranking)
    turn.stage2 = stage2
    await save()
  }
  const { stage2 } = turn
  tell({ type: 'stage2_complete', data: stage2, metadata: notes.all() })
  tell({ type: 'stage3_start' })
  const { label_to_model = {}, aggregate_rankings = [] } = notes.all()
  const stage3 = await conclude(inquiry, stage1, { stage2, label_to_model, aggregate_rankings })
  return { stage1, stage2, stage3 }
}

/** False when its user has given it a title meanwhile, or it cannot be stored: the answer is there without it. */
async function saveTitle(
  { conversations, log }: CouncilParts,
  { scope, id }: Asking,
  title: string,
): Promise<boolean> {
  try {
    const current = await conversations.getConversation(scope, id)
    if (current.title !== NEW_TITLE) return false
    await conversations.updateConversationTitle(scope, id, title)
    return true
  } catch (error) {
    log.warn({ err: error }, 'the title of a conversation could not be stored')
    return false
  }
}
