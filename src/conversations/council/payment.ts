import { isThreadbaseError, type ThreadbaseError } from '../../core/errors.ts'
import type { Logger } from '../../core/log.ts'
import type { Scope } from '../../core/scope.ts'
import type { Conversation } from '../schema.ts'
import { isPaid, markPaid } from './notes.ts'
import type { HeldTurn } from './turn.ts'

/** What is counted for a question, and given back when nobody was asked. */
export type QuestionCounter = {
  consume(scope: Scope, n?: number): Promise<{ receipt: unknown }>
  // a method, so that any kind of receipt fits
  refund(scope: Scope, receipt: never): Promise<unknown>
}

type Parts = { usage: QuestionCounter; log: Logger }

export type Payment = { receipt: unknown } | { refusal: ThreadbaseError }

/** Counts the question. Who may ask no more may still go on with what they paid for. */
export async function pay(
  usage: QuestionCounter,
  scope: Scope,
  { messages }: Conversation,
  content: string,
): Promise<Payment> {
  try {
    return { receipt: (await usage.consume(scope, 1)).receipt }
  } catch (error) {
    const newest = messages.at(-1)
    const isWaiting = newest?.role === 'user' && newest.content === content
    if (isWaiting && isThreadbaseError(error, 'quota_exceeded')) return { refusal: error }
    throw error
  }
}

/**
 * Before any model is asked: a question is paid for once, however often it is taken up. That it is stands in the turn, for
 * a message that is only there may have come from anywhere.
 * @throws the refusal when there is one and nothing was paid
 */
export async function settle(parts: Parts, scope: Scope, payment: Payment, held: HeldTurn): Promise<void> {
  const { turn } = held
  if (held.resumed && isPaid(turn)) return giveBack(parts, scope, payment)
  if ('refusal' in payment) throw payment.refusal
  try {
    markPaid(turn)
    await held.save()
  } catch (error) {
    await giveBack(parts, scope, payment)
    throw error
  }
}

/** Never fails: what was counted too much is less than an answer lost. */
export async function giveBack({ usage, log }: Parts, scope: Scope, payment: Payment): Promise<void> {
  if (!('receipt' in payment)) return
  try {
    await usage.refund(scope, payment.receipt as never)
  } catch (error) {
    log.warn({ err: error }, 'a question that was not asked could not be given back')
  }
}
