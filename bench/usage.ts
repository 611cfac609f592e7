import { sql } from 'kysely'
import { openThreadbase } from '../src/index.ts'
import type { Threadbase } from '../src/threadbase.ts'
import { consumeStatement } from '../src/usage/repo.ts'
import type { UsageSettings } from '../src/usage/schema.ts'
import { alternate, perSecond, type Row } from './harness.ts'
import { pgbench } from './postgres.ts'

const CALLERS = 16
const SECONDS = 3
const ROUNDS = 5
const TARGET = 0.6

// so that nobody is refused, and the tier is looked up all the same
const TIERS = 'free=10/100,pro=2000000000/2000000000,enterprise=unlimited'
const SETTINGS: UsageSettings = {
  tiers: new Map([
    ['free', { daily: 10, monthly: 100 }],
    ['pro', { daily: 2_000_000_000, monthly: 2_000_000_000 }],
    ['enterprise', { daily: null, monthly: null }],
  ]),
  defaultTier: 'pro',
  localTier: 'pro',
}

/** `usage.consume` at 16 callers against `pgbench` with the statement that it sends: for as many users, and for one. */
export async function usageRows(databaseUrl: string, { rounds = ROUNDS } = {}): Promise<Row[]> {
  const databaseSchema = `usage_bench_${process.pid}`
  const env = { USAGE_TIERS: TIERS, USAGE_DEFAULT_TIER: 'pro' }
  await using tb = await openThreadbase({ env, embeddings: false, databaseUrl, databaseSchema })
  try {
    const compare = async (
      work: string,
      userOf: (caller: number) => string,
      script: string,
    ): Promise<Row> => {
      const rates = await alternate(rounds, {
        pgbench: async () => pgbench(databaseUrl, script, { clients: CALLERS, seconds: SECONDS }),
        library: () => rateOf(tb, userOf),
      })
      const ratio = rates.library / rates.pgbench
      return {
        work: `usage.consume, 16 callers, ${work}`,
        figure: perSecond(rates.library),
        limit: `pgbench ${perSecond(rates.pgbench)}`,
        ratio,
        target: `≥ ${TARGET.toFixed(2)}`,
        met: ratio >= TARGET,
      }
    }
    return [
      await compare('16 users', (caller) => `user ${caller}`, scriptOf(tb, `'user ' || :client_id`)),
      await compare('one user', () => 'one', scriptOf(tb, `'one'`)),
    ]
  } finally {
    await sql`drop schema ${sql.id(databaseSchema)} cascade`.execute(tb.database.db)
  }
}

/** What `usage.consume` sends, with values in place of its parameters. */
function scriptOf(tb: Threadbase, userId: string): string {
  const given: Record<string, string> = {
    userIds: `array[${userId}]`,
    tiers: `array['pro']`,
    counts: 'array[1]',
    fitNew: 'array[1]',
    clock: 'null',
  }
  const { sql: text, parameters } = consumeStatement(SETTINGS).compile(tb.database.db)
  const values = parameters.map((parameter) => `(${given[(parameter as { of: string }).of]})`)
  // the script of pgbench goes line by line
  return `${text.replace(/\$(\d+)/g, (_, n: string) => String(values[Number(n) - 1])).replace(/\s+/g, ' ')};`
}

async function rateOf(tb: Threadbase, userOf: (caller: number) => string): Promise<number> {
  const until = performance.now() + 1_000 * SECONDS
  let calls = 0
  const callers = Array.from({ length: CALLERS }, async (_, caller) => {
    const scope = { userId: userOf(caller) }
    for (; performance.now() < until; calls++) await tb.usage.consume(scope)
  })
  const started = performance.now()
  await Promise.all(callers)
  return (1_000 * calls) / (performance.now() - started)
}
