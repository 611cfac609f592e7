import { canonicalJson } from '../../core/json.ts'
import type { Thread } from '../../threads/schema.ts'
import { digestThreadHead, type FileConversation, fileMarkOf } from './document.ts'
import type { StoredMessage } from './repo.ts'

/** What to do about a conversation that is there already. */
export type Plan =
  | { do: 'fail'; reason: string }
  | { do: 'nothing'; reason?: string }
  | { do: 'grow' /** The first message that is missing. */; from: number; head: boolean; reason?: string }

const KEPT = 'its title or other fields were changed in both: those of the database stay'

/** The messages of the file must be a beginning of those that are stored, or the other way round. */
export function compare(conversation: FileConversation, thread: Thread, stored: StoredMessage[]): Plan {
  if (thread.kind !== 'council')
    return { do: 'fail', reason: `a thread of kind ${thread.kind} has its id: nothing was changed` }
  const { messages } = conversation
  const both = Math.min(messages.length, stored.length)
  for (let at = 0; at < both; at++) {
    if (!isSame(conversation, stored[at], at))
      return {
        do: 'fail',
        reason: `message ${at + 1} differs from the one that is stored: nothing was changed`,
      }
  }
  const head = compareHeads(conversation, thread)
  const reason = head === 'both changed' ? KEPT : undefined
  const takesHead = head === 'file changed'
  if (messages.length <= stored.length && !takesHead) return { do: 'nothing', reason }
  return { do: 'grow', from: both, head: takesHead, reason }
}

function isSame({ messages }: FileConversation, stored: StoredMessage | undefined, at: number): boolean {
  const prepared = messages[at]
  if (prepared === undefined || stored === undefined || prepared.row.digest !== stored.digest) return false
  // fields that the digest does not see
  const { council } = prepared.message.meta ?? {}
  return canonicalJson(council) === canonicalJson(stored.council)
}

/** Against what the file said when it was moved: who changed it since. */
function compareHeads(
  { meta: { council_file: mark } }: FileConversation,
  thread: Thread,
): 'same' | 'file changed' | 'both changed' {
  const before = fileMarkOf(thread).head
  if (before === mark.head) return 'same'
  const now = digestThreadHead(thread)
  if (now === mark.head) return 'same'
  return now === before ? 'file changed' : 'both changed'
}
