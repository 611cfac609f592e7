import { hash } from 'node:crypto'
import type { Scope } from '../core/scope.ts'
import { digestMessage } from '../messages/service.ts'
import type { RunBatch } from './import.ts'
import { outcomeOf } from './import-batch.ts'
import { type Planned, planExisting, type Slices } from './plan.ts'
import type { Conversation } from './schema.ts'

/** What an earlier line of the same file would have stored: so many messages, with this digest. */
type Seen = { count: number; digest: string }

/** Says what an import would do. What only the database itself would refuse is not found out. */
export function createDryRun(slices: Slices, scope: Scope): RunBatch {
  const seen = new Map<string, Seen>()
  return async (conversations) => {
    const planned = await planExisting(slices, scope, conversations)
    return planned.map((item) => {
      const again = againstSeen(item, seen.get(item.conversation.threadId))
      const { plan } = again
      const outcome = outcomeOf(again, { added: plan.do === 'append' ? plan.messages.length : 0 })
      if (outcome.status === 'imported' || outcome.status === 'extended')
        seen.set(item.conversation.threadId, digestOf(item.conversation))
      return outcome
    })
  }
}

function digestOf({ messages }: Conversation, count = messages.length): Seen {
  const digests = messages.slice(0, count).map((message) => digestMessage(message))
  return { count, digest: hash('sha256', digests.join(), 'base64') }
}

/** The plan as it would be if the earlier line had been stored. */
function againstSeen(item: Planned, earlier: Seen | undefined): Planned {
  if (earlier === undefined || item.plan.do !== 'append') return item
  const { conversation } = item
  const common = Math.min(earlier.count, conversation.messages.length)
  if (common === earlier.count && digestOf(conversation, common).digest !== earlier.digest)
    return { ...item, plan: { do: 'refuse', reason: 'it differs from an earlier one of the same file' } }
  const messages = conversation.messages.slice(earlier.count)
  if (messages.length === 0) return { ...item, plan: { do: 'nothing' } }
  return { ...item, plan: { do: 'append', messages, newFields: true } }
}
