import type { CouncilMetadata } from '../schema.ts'
import type { Turn } from '../store.ts'

/** What is kept of a turn beside its stages. `paid`: the question is counted. It never leaves the turn. */
type TurnNotes = CouncilMetadata & { paid?: boolean }

export type OpenNotes = {
  /** As they are stored with the answer. */
  all(): CouncilMetadata
  add(more: CouncilMetadata): void
}

/** The metadata of an answer, each change of which is in the turn: who takes it over goes on with them. */
export function openNotes(turn: Turn): OpenNotes {
  const { paid, failures = [], ...before } = (turn.metadata ?? {}) as TurnNotes
  // in a stage that is gone through again they may answer
  const lasting = failures.filter(
    ({ stage }) =>
      (stage === 'stage1' && turn.stage1 !== undefined) || (stage === 'stage2' && turn.stage2 !== undefined),
  )
  let notes: CouncilMetadata = lasting.length > 0 ? { ...before, failures: lasting } : before
  return {
    all: () => notes,
    add(more) {
      notes = { ...notes, ...more }
      turn.metadata = { ...notes, paid } as TurnNotes
    },
  }
}

export const isPaid = ({ metadata }: Turn): boolean => (metadata as TurnNotes | undefined)?.paid === true

export function markPaid(turn: Turn): void {
  turn.metadata = { ...turn.metadata, paid: true } as TurnNotes
}
