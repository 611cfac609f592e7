import { openThreadbase } from '../src/index.ts'
import { jsonConversationRows } from './conversations-json.ts'
import { type BenchOptions, machineFacts, type Row, report } from './harness.ts'
import { migrateJsonRows } from './migrate-json.ts'
import { startPostgres } from './postgres.ts'
import { usageRows } from './usage.ts'

const PARTS: Record<string, (url: string, rounds: number | undefined) => Promise<Row[]>> = {
  migrate: migrateJsonRows,
  json: (_url, rounds) => jsonConversationRows(rounds),
  usage: (url, rounds) => usageRows(url, { rounds }),
}

/** Conversations of councils: the move into PostgreSQL, JSON files, and the counting of questions. */
export async function benchConversations({ only = Object.keys(PARTS), rounds }: BenchOptions): Promise<void> {
  const postgres = startPostgres()
  try {
    const tb = await openThreadbase({ databaseUrl: postgres.url, env: {}, embeddings: false })
    const facts = await machineFacts(tb.database).finally(tb.close)
    const rows: Row[] = []
    for (const part of only) rows.push(...((await PARTS[part]?.(postgres.url, rounds)) ?? []))
    report('conversations', facts, rows)
  } finally {
    postgres.stop()
  }
}
