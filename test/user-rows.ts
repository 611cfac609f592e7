import { randomUUID } from 'node:crypto'
import { emptyCheckpoint } from '@langchain/langgraph-checkpoint'
import { sql } from 'kysely'
import type { StoreServiceOptions } from '../src/checkpoints/store/service.ts'
import type { Threadbase } from '../src/threadbase.ts'
import type { TestDatabase } from './harness.ts'
import { storeBesideSearch } from './search-rows.ts'

/** What a store needs to be opened with to have rows with vectors. */
export const TEST_VECTORS: StoreServiceOptions = {
  index: { dims: 3, embeddings: async (texts) => texts.map(() => [1, 0, 0]) },
}

/**
 * A row of the user in every table that holds rows of users but the tombstones; a store with {@link TEST_VECTORS} must be
 * open. Whoever adds a table adds a row of it here.
 * @returns the id of a thread of the user
 */
export async function storeEverything(
  { tb, database: { db } }: Pick<TestDatabase, 'tb' | 'database'>,
  userId: string,
): Promise<string> {
  await tb.identity.users.ensure({ id: userId, provider: 'proxy' })
  await tb.identity.keys.create({ userId }, { userId, via: 'library' }, { name: 'k' })
  await sql`insert into ${sql.table('sessions')} (user_id, id, expires_at)
            values (${userId}, ${randomUUID()}::uuid, now() + interval '1 day')`.execute(db)
  const { id } = await tb.threads.create({ userId }, { title: `of ${userId}` })
  await tb.messages.append({ userId }, id, [{ role: 'user', content: 'x' }])
  await tb.configs.put({ userId }, id, { model: 'm' })
  await storeState(tb, userId)
  await storeSecrets(tb, userId)
  await storeCouncil(tb, userId)
  await storeBesideSearch(db, userId, id)
  await storeBytes(tb, userId, id)
  return id
}

/** A row in each table of checkpoints and of the store. */
async function storeState({ forUser }: Threadbase, userId: string): Promise<void> {
  const { checkpointer, store } = forUser(userId)
  await store.put(['notes'], 'k', { text: 'x' })
  const checkpoint = {
    ...emptyCheckpoint(),
    channel_values: { list: [{ text: 'x'.repeat(200) }] },
    channel_versions: { list: 1 },
  }
  for (const thread_id of ['deleted', 'kept']) {
    const config = await checkpointer.put(
      { configurable: { thread_id } },
      checkpoint,
      { source: 'input', step: -1, parents: {} },
      { list: 1 },
    )
    await checkpointer.putWrites(config, [['x', 1]], 'task')
  }
  await checkpointer.deleteThread('deleted')
}

async function storeSecrets({ credentials, variables }: Threadbase, userId: string): Promise<void> {
  const actor = { userId, via: 'library' } as const
  await credentials.apiKeys.put({ userId }, actor, 'openai', { apiKey: 'sk' })
  await variables.create({ userId }, actor, { name: 'n', value: 'v' })
}

async function storeCouncil({ conversations, database }: Threadbase, userId: string): Promise<void> {
  const { id } = await conversations.createConversation({ userId })
  await conversations.turns.begin({ userId }, id, { content: 'x', holder: randomUUID(), leaseS: 10 })
  await database.db.insertInto('usage').values({ user_id: userId }).execute()
}

/** A row in each table of artifacts and files; the bytes are the same for all users. */
async function storeBytes({ artifacts, files }: Threadbase, userId: string, thread: string): Promise<void> {
  await artifacts.create({ userId }, thread, 'bytes')
  await files.create({ userId }, 'bytes')
  await files.startUpload({ userId }, { sha256: 'a'.repeat(64), size: 1 })
}
