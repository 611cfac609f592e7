import { openThreadbase } from '../src/index.ts'
import { machineFacts, report } from './harness.ts'
import { startPostgres } from './postgres.ts'
import { rlsRows } from './rls.ts'

/** What keeping users apart costs. */
export async function benchAuth(): Promise<void> {
  const postgres = startPostgres()
  try {
    await using tb = await openThreadbase({ databaseUrl: postgres.url, env: {} })
    report('auth', await machineFacts(tb.database), await rlsRows(postgres.url))
  } finally {
    postgres.stop()
  }
}
