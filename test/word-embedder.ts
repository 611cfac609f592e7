import { sql } from 'kysely'
import { silentLog } from '../src/core/log.ts'
import { realArray } from '../src/db/arrays.ts'
import type { Database } from '../src/db/database.ts'
import { DIMENSIONS, type Embedder } from '../src/embeddings/embedder.ts'
import { createVectors, prepareVectors } from '../src/search/vectors/service.ts'

/** A small number for a text, always the same (FNV-1a). */
function hashOf(text: string): number {
  let hash = 0x811c9dc5
  for (const char of text) hash = Math.imul(hash ^ (char.codePointAt(0) as number), 0x01000193)
  return hash >>> 0
}

/** Each word has a direction, and a text is the sum of its words: texts with words in common are near. */
export function vectorOf(text: string): Float32Array {
  const vector = new Float32Array(DIMENSIONS)
  for (const word of text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? ['']) {
    for (let i = 0; i < 8; i++) {
      const hash = hashOf(`${i} ${word}`)
      const at = hash % DIMENSIONS
      vector[at] = (vector[at] ?? 0) + (hash & 0x10000 ? 1 : -1)
    }
  }
  const length = Math.hypot(...vector)
  return vector.map((number) => number / (length || 1))
}

/** A stand-in for a model, made of nothing but the words of the texts. */
export function wordEmbedder(model = 'words'): Embedder & { calls: string[][] } {
  const calls: string[][] = []
  return {
    model,
    description: 'words',
    batchSize: 32,
    calls,
    embed: async (texts) => {
      calls.push([...texts])
      return texts.map(vectorOf)
    },
    close: async () => {},
  }
}

/** Gives all messages and results of sessions their vectors. */
export async function embedAll(database: Database, embedder: Embedder): Promise<void> {
  await prepareVectors(database, { index: 'hnsw', change: true }, silentLog)
  const space = await createVectors(database, { probes: undefined }).space()
  if (!space.available) throw new Error('there are no vectors in this database')
  const { db, schema } = database
  for (const [table, key] of [
    ['messages', 'id'],
    ['chain_analysis_results', 'session_id'],
  ] as const) {
    const body =
      table === 'messages'
        ? sql`${sql.id(schema, 'message_text')}(text, content, tool_name, tool_output)`
        : sql`text`
    const { rows } = await sql<{ user_id: string; id: string; body: string }>`
      select user_id, ${sql.id(key)} as id, ${body} as body from ${sql.id(schema, table)}
       where embedding_model is distinct from ${embedder.model}`.execute(db)
    const vectors = await embedder.embed(rows.map((row) => row.body))
    for (const [i, { user_id, id }] of rows.entries()) {
      const vector = sql`${realArray(vectors[i] as Float32Array)}::real[]::${sql.id(space.schema)}.vector`
      await sql`update ${sql.id(schema, table)} set embedding = ${vector}, embedding_model = ${embedder.model}
                 where user_id = ${user_id} and ${sql.id(key)} = ${id}::uuid`.execute(db)
    }
  }
}
