import { rm } from 'node:fs/promises'
import { openJsonConversations } from '../src/conversations/json/store.ts'
import type { Conversation, CouncilAnswer } from '../src/conversations/schema.ts'
import type { ConversationStore } from '../src/conversations/store.ts'
import { engines, makeTempDir, recordingLog, type TestDatabase } from './harness.ts'

export type OpenedConversations = { store: ConversationStore; close(): Promise<void> }

/**
 * All that keeps conversations. Open one for a test file and share it among users.
 * `for (const { name, available, open } of conversationStores) describe.skipIf(!available)(name, () => …)`
 */
export const conversationStores: {
  name: string
  available: boolean
  open(): Promise<OpenedConversations>
}[] = [
  { name: 'JSON files', available: true, open: openJson },
  ...engines.map(({ name, available, open }) => ({
    name,
    available,
    open: async () => openSql(await open()),
  })),
]

const openSql = ({ tb, close }: TestDatabase): OpenedConversations => ({ store: tb.conversations, close })

async function openJson(): Promise<OpenedConversations> {
  const dir = await makeTempDir()
  const store = await openJsonConversations({ dir, log: recordingLog().log })
  const close = async () => {
    await store.close()
    await rm(dir, { recursive: true, force: true })
  }
  return { store, close }
}

/** An answer as a council of two gives it. */
export function answerOf(text: string): CouncilAnswer {
  return {
    stage1: [
      { model: 'one/a', response: `A says ${text}` },
      { model: 'two/b', response: `B says ${text}` },
    ],
    stage2: [
      { model: 'one/a', ranking: '1. Response B', parsed_ranking: ['Response B', 'Response A'] },
      { model: 'two/b', ranking: '1. Response A', parsed_ranking: ['Response A', 'Response B'] },
    ],
    stage3: { model: 'chair/c', response: `Finally ${text}` },
    metadata: {
      label_to_model: { 'Response A': 'one/a', 'Response B': 'two/b' },
      aggregate_rankings: [
        { model: 'one/a', average_rank: 1.5, rankings_count: 2 },
        { model: 'two/b', average_rank: 1.5, rankings_count: 2 },
      ],
    },
  }
}

/** A conversation as it is saved. */
export function conversationOf(
  id: string,
  messages: Conversation['messages'] = [],
  others: Partial<Conversation> = {},
): Conversation {
  return { id, created_at: '2026-01-02T03:04:05.678+00:00', title: 'Trip', messages, ...others }
}
