import { sql } from 'kysely'
import { silentLog } from '../src/core/log.ts'
import { realArray } from '../src/db/arrays.ts'
import type { Embedder } from '../src/embeddings/embedder.ts'
import { openLocal } from '../src/embeddings/local.ts'
import { SEARCH_MODES, type SearchMode } from '../src/search/schema.ts'
import { createSearchService } from '../src/search/service.ts'
import { createVectors, prepareVectors } from '../src/search/vectors/service.ts'
import type { Threadbase } from '../src/threadbase.ts'
import { type Dialogue, dialoguesFile, readDialogues, type SourceMessage } from '../test/dialogues.ts'
import { median, ms, type Row, timed } from './harness.ts'
import type { SearchBench } from './search.ts'

const QUERIES = 500
const TOP = 10
const scope = { userId: 'reader' }

type Query = { q: string; dialogue: number; from: 'slots' | 'restatement' }

/**
 * How often the thread of a user's turn is among the ten best hits of a query that is made of what the turn itself says:
 * the values that its service call has of it, or what a later turn says again of it.
 */
export async function qualityRows({ tb }: SearchBench): Promise<Row[]> {
  const dialogues = readDialogues(dialoguesFile())
  const queries = makeQueries(dialogues)
  const threads = await store(tb, dialogues)
  const embedder = openLocal({ engine: 'auto', log: silentLog })
  try {
    await embedAll(tb, embedder)
    const search = createSearchService(tb.database, {
      embedder,
      vectors: createVectors(tb.database, { probes: undefined }),
      trigrams: async () => undefined,
    })
    const rows: Row[] = []
    const recall: Partial<Record<SearchMode, number>> = {}
    for (const mode of SEARCH_MODES) {
      const times: number[] = []
      let found = 0
      for (const { q, dialogue } of queries) {
        const { ms: took, result } = await timed(() => search.messages(scope, { q, mode, limit: TOP }))
        times.push(took)
        if (result.items.some(({ thread }) => thread.id === threads[dialogue])) found++
      }
      recall[mode] = found / queries.length
      rows.push(row(mode, recall, queries, times))
    }
    return rows
  } finally {
    await embedder.close()
  }
}

function row(
  mode: SearchMode,
  recall: Partial<Record<SearchMode, number>>,
  queries: Query[],
  times: number[],
): Row {
  const slots = queries.filter(({ from }) => from === 'slots').length
  const value = recall[mode] ?? 0
  const better = Math.max(recall.text ?? 0, recall.semantic ?? 0)
  return {
    work: `recall@${TOP}, ${mode}, ${queries.length} queries (${slots} of slot values)`,
    figure: value.toFixed(3),
    limit: `median ${ms(median(times))}`,
    ...(mode === 'hybrid'
      ? { ratio: value / better, target: '≥ the better of the two', met: value >= better }
      : {}),
  }
}

const textOf = ({ content }: SourceMessage) => (typeof content === 'string' ? content : '')

/** Every so many user turns that a query can be made of: all kinds of dialogues come, and none is chosen. */
export function makeQueries(dialogues: Dialogue[]): Query[] {
  const all = dialogues.flatMap(({ messages }, dialogue) =>
    messages.flatMap((message, i) => {
      if (message.role !== 'user') return []
      const made = fromSlots(messages, i) ?? fromRestatement(messages, i)
      return made === undefined ? [] : [{ ...made, dialogue }]
    }),
  )
  const step = all.length / Math.min(QUERIES, all.length)
  return Array.from({ length: Math.min(QUERIES, all.length) }, (_, n) => all[Math.floor(n * step)] as Query)
}

const LEAST_VALUES = 2
const LEAST_WORDS = 4

/** The values of the next service call that the turn names. */
function fromSlots(messages: SourceMessage[], at: number): Omit<Query, 'dialogue'> | undefined {
  const text = textOf(messages[at] as SourceMessage).toLowerCase()
  const call = messages.slice(at + 1).find(({ tool_calls }) => Array.isArray(tool_calls))
  const [made] = (call?.tool_calls ?? []) as { function: { arguments: string } }[]
  if (made === undefined) return undefined
  const values = Object.values(JSON.parse(made.function.arguments) as Record<string, unknown>).map(String)
  const named = [...new Set(values.filter((value) => value.length > 1 && text.includes(value.toLowerCase())))]
  return named.length < LEAST_VALUES ? undefined : { q: named.join(' '), from: 'slots' }
}

/** The words of the turn that the next answer says again, in the order of the answer. */
function fromRestatement(messages: SourceMessage[], at: number): Omit<Query, 'dialogue'> | undefined {
  const wordsOf = (text: string) => text.toLowerCase().match(/[\p{L}\p{N}:$.]*[\p{L}\p{N}]/gu) ?? []
  const said = new Set(wordsOf(textOf(messages[at] as SourceMessage)))
  const answer = messages
    .slice(at + 1)
    .find((message) => message.role === 'assistant' && textOf(message) !== '')
  const again = wordsOf(answer === undefined ? '' : textOf(answer))
  const common = [...new Set(again.filter((word) => said.has(word) && word.length > 3))]
  return common.length < LEAST_WORDS ? undefined : { q: common.join(' '), from: 'restatement' }
}

/** Stores each dialogue as a thread. @returns the threads' ids, in order */
async function store(tb: Threadbase, dialogues: Dialogue[]): Promise<string[]> {
  const ids: string[] = []
  for (const { title, messages } of dialogues) {
    const { id } = await tb.threads.create(scope, { title: title ?? null })
    ids.push(id)
    const known = messages.filter((message) => textOf(message) !== '')
    await tb.messages.append(
      scope,
      id,
      known.map((message) =>
        message.role === 'tool'
          ? { role: 'tool' as const, content: '', toolOutput: JSON.parse(textOf(message)) as unknown }
          : { role: message.role as 'user' | 'assistant', content: textOf(message) },
      ),
    )
  }
  return ids
}

/** As the background does, all at once. */
async function embedAll({ database }: Threadbase, embedder: Embedder): Promise<void> {
  const { db, schema } = database
  await prepareVectors(database, { index: 'hnsw', change: true }, silentLog)
  const { rows } = await sql<{ id: string; body: string }>`
    select id, ${sql.id(schema, 'message_text')}(text, content, tool_name, tool_output) as body
      from ${sql.id(schema, 'messages')} where embedding_model is null`.execute(db)
  for (let at = 0; at < rows.length; at += embedder.batchSize) {
    const batch = rows.slice(at, at + embedder.batchSize)
    const vectors = await embedder.embed(batch.map(({ body }) => body))
    for (const [i, { id }] of batch.entries()) {
      await sql`update ${sql.id(schema, 'messages')}
                   set embedding = ${realArray(vectors[i] as Float32Array)}::real[]::vector, embedding_model = ${embedder.model}
                 where user_id = ${scope.userId} and id = ${id}::uuid`.execute(db)
    }
    if (at % (50 * embedder.batchSize) === 0) process.stderr.write(`  ${at} of ${rows.length} embedded\n`)
  }
}
