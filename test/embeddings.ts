import { setTimeout as delay } from 'node:timers/promises'
import { sql } from 'kysely'
import type { Database } from '../src/db/database.ts'
import { t } from '../src/db/schema.ts'

/** What a message has of its embedding. */
export type EmbeddingRow = { id: string; model: string | null; embedding: number[] | null }

/** Of a user's messages, by thread and seq. */
export async function embeddingsOf({ db }: Pick<Database, 'db'>, userId: string): Promise<EmbeddingRow[]> {
  const { rows } = await sql<{ id: string; model: string | null; embedding: string | null }>`
    select id, embedding_model as model, embedding::text from ${t.messages} where user_id = ${userId}
     order by thread_id, seq`.execute(db)
  return rows.map(({ id, model, embedding }) => ({
    ...{ id, model },
    embedding: embedding === null ? null : (JSON.parse(embedding) as number[]),
  }))
}

export async function countClaims({ db }: Pick<Database, 'db'>): Promise<number> {
  const { rows } = await sql<{ n: number }>`select count(*)::int as n from ${t.embeddingClaims}`.execute(db)
  return rows[0]?.n ?? 0
}

/** Looks until something is so. */
export async function until<T>(
  look: () => Promise<T | undefined | false>,
  what: string,
  withinMs = 30_000,
): Promise<T> {
  const end = performance.now() + withinMs
  for (;;) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    if (performance.now() > end) throw new Error(`still not so after ${withinMs} ms: ${what}`)
    await delay(20)
  }
}

/** Waits until each of a user's messages has been come to by the model. */
export function untilEmbedded(database: Pick<Database, 'db'>, userId: string, model = 'test-words') {
  return until(async () => {
    const rows = await embeddingsOf(database, userId)
    return rows.length > 0 && rows.every((row) => row.model === model) && rows
  }, `all messages of ${userId} are done by ${model}`)
}
