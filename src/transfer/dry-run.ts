import { digestJson } from '../core/json.ts'
import type { Scope } from '../core/scope.ts'
import type { RunBatch } from './import.ts'
import { outcomeOf } from './import-batch.ts'
import { type Planned, planExisting, type Slices } from './plan.ts'
import type { Conversation } from './schema.ts'

// enough to tell the messages of one conversation from each other
const DIGEST_BYTES = 8

/** What an earlier line of the same file would have stored: a digest of its fields and one of each message. */
type Seen = { fields: string; messages: Buffer }

/** Says what an import would do. What only the database itself would refuse is not found out. */
export function createDryRun(slices: Slices, scope: Scope): RunBatch {
  const seen = new Map<string, Seen>()
  return async (conversations) => {
    const planned = await planExisting(slices, scope, conversations)
    return planned.map((item) => {
      const { threadId } = item.conversation
      const earlier = seen.get(threadId)
      const after = earlier === undefined ? item : planAfter(item, earlier)
      const added = after.plan.do === 'append' ? after.plan.messages.length : 0
      const outcome = outcomeOf(after, { added })
      if (after.plan.do === 'append') seen.set(threadId, digestOf(item.conversation))
      return outcome.status === 'imported' && earlier !== undefined
        ? { ...outcome, status: 'extended' }
        : outcome
    })
  }
}

function digestOf({ line, messages }: Conversation): Seen {
  const digests = messages.map(({ role, content, toolInput, meta }) =>
    Buffer.from(digestJson([role, content, toolInput, meta]), 'hex').subarray(0, DIGEST_BYTES),
  )
  return { fields: digestJson(line), messages: Buffer.concat(digests) }
}

/** The plan as it would be if the earlier line had been stored. */
function planAfter(item: Planned, earlier: Seen): Planned {
  if (item.plan.do !== 'append') return item
  const { conversation } = item
  const now = digestOf(conversation)
  const common = Math.min(now.messages.length, earlier.messages.length)
  if (!now.messages.subarray(0, common).equals(earlier.messages.subarray(0, common)))
    return { ...item, plan: { do: 'refuse', reason: 'it differs from an earlier one of the same file' } }
  const messages = conversation.messages.slice(earlier.messages.length / DIGEST_BYTES)
  if (messages.length > 0) return { ...item, plan: { do: 'append', messages, newFields: true } }
  const sameLength = now.messages.length === earlier.messages.length
  return sameLength && now.fields !== earlier.fields
    ? { ...item, plan: { do: 'refuse', reason: 'it has other fields than an earlier one of the same file' } }
    : { ...item, plan: { do: 'nothing' } }
}
