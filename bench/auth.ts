import { openThreadbase } from '../src/index.ts'
import { requestRows } from './auth-requests.ts'
import { machineFacts, report } from './harness.ts'
import { startPostgres } from './postgres.ts'
import { startRedis } from './redis.ts'
import { rlsRows } from './rls.ts'

/** What knowing the caller costs, and what keeping users apart costs. */
export async function benchAuth(): Promise<void> {
  const postgres = startPostgres()
  const redis = startRedis()
  try {
    await using tb = await openThreadbase({ databaseUrl: postgres.url, env: {}, embeddings: false })
    const facts = await machineFacts(tb.database)
    const rows = [...(await requestRows(postgres.url, redis?.url)), ...(await rlsRows(postgres.url))]
    report('auth', facts, rows)
  } finally {
    redis?.stop()
    postgres.stop()
  }
}
