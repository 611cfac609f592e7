import { isThreadbaseError } from '../../core/errors.ts'
import { newId } from '../../core/ids.ts'
import type { Logger } from '../../core/log.ts'
import type { Scope } from '../../core/scope.ts'
import type { CouncilAnswer } from '../schema.ts'
import type { Turn, TurnStore } from '../store.ts'

export type HeldTurn = {
  /** What the answer has so far; change it, then save it. */
  readonly turn: Turn
  first: boolean
  resumed: boolean
  /** @throws conflict or not_found when the turn is lost */
  save(): Promise<void>
  finish(answer: CouncilAnswer): Promise<void>
  /** Gives the turn up for who asks again. Never fails. */
  release(): Promise<void>
}

type Parts = { turns: TurnStore; leaseS: number; log: Logger }

/**
 * Begins a turn and keeps it: its lease is prolonged four times before it would end.
 * @param onLost is told when it is another's by now, or its conversation is gone
 * @throws as `turns.begin`
 */
export async function holdTurn(
  { turns, leaseS, log }: Parts,
  { scope, id, content }: { scope: Scope; id: string; content: string },
  onLost: (error: unknown) => void,
): Promise<HeldTurn> {
  const holder = newId()
  const { turn, ...begun } = await turns.begin(scope, id, { content, holder, leaseS })
  let last: Promise<unknown> = Promise.resolve()
  let waiting = 0
  // one after the other, so that no older state comes over a newer one
  const save = (): Promise<void> => {
    waiting++
    const saved = last.then(() => turns.save(scope, id, holder, turn, leaseS))
    last = saved.then(noop, noop).then(() => waiting--)
    return saved
  }
  const timer = setInterval(() => {
    if (waiting > 0) return
    save().catch((error) => {
      if (isThreadbaseError(error, 'conflict') || isThreadbaseError(error, 'not_found')) onLost(error)
      else log.warn({ err: error }, 'the turn of a council could not be prolonged')
    })
  }, leaseS * 250)
  const end = async () => {
    clearInterval(timer)
    await last
  }
  return {
    turn,
    ...begun,
    save,
    async finish(answer) {
      await end()
      await turns.finish(scope, id, holder, answer)
    },
    async release() {
      // what was spent since the last stage is known to who goes on
      await save().catch(noop)
      await end()
      await turns
        .release(scope, id, holder)
        .catch((error) => log.warn({ err: error }, 'the turn of a council could not be released'))
    },
  }
}

const noop = () => {}
