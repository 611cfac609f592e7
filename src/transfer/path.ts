import type { Scope } from '../core/scope.ts'
import type { Message } from '../messages/schema.ts'
import type { MessageService } from '../messages/service.ts'
import type { Thread } from '../threads/schema.ts'
import type { Turn } from './repo.ts'

/** Messages from `first` to `last`, by seq, each following the one before. */
type Stretch = { first: number; last: number }

/**
 * The path from the root to the newest message as stretches of the thread, in order, so that it can be read page by
 * page: a recursive query would walk the whole path for each page.
 * @param turns see `listTurns`
 */
export function stretchesOf(lastSeq: number, turns: Pick<Turn, 'seq' | 'parentSeq'>[]): Stretch[] {
  const stretches: Stretch[] = []
  let last = lastSeq
  for (let i = turns.length - 1; i >= 0; i--) {
    const turn = turns[i]
    if (turn === undefined || turn.seq > last) continue
    stretches.push({ first: turn.seq, last })
    if (turn.parentSeq === null) return stretches.reverse()
    last = turn.parentSeq
  }
  stretches.push({ first: 1, last })
  return stretches.reverse()
}

const PAGE = 200

/** The messages from the root to the newest one, page by page; those appended after `thread` was read are left out. */
export async function* readPath(
  messages: MessageService,
  scope: Scope,
  thread: Thread,
  turns: Turn[],
): AsyncGenerator<Message[]> {
  if (thread.lastSeq === 0) return
  for (const { first, last } of stretchesOf(thread.lastSeq, turns)) {
    for (let after = first - 1; after < last; ) {
      const range = { after, before: last + 1, order: 'asc', limit: PAGE } as const
      const { items, nextCursor } = await messages.list(scope, thread.id, range)
      if (items.length > 0) yield items
      if (nextCursor === undefined) break
      after = items.at(-1)?.seq ?? last
    }
  }
}
