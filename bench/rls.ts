import { sql } from 'kysely'
import { openThreadbase } from '../src/index.ts'
import type { Threadbase } from '../src/threadbase.ts'
import { alternate, perSecond, type Row } from './harness.ts'

const CALLERS = 16
const SECONDS = 3
const ROUNDS = 5
const TARGET = 0.8
const TEXT = 'The quick brown fox jumps over the lazy dog. '.repeat(5).trim()

type Place = { userId: string; threadId: string }

/** `DATABASE_RLS=enforce` against off on one database: appending and reading, in calls per second of the library. */
export async function rlsRows(databaseUrl: string): Promise<Row[]> {
  const options = {
    env: {},
    embeddings: false,
    databaseUrl,
    databaseSchema: `rls_bench_${process.pid}`,
  } as const
  await using off = await openThreadbase({ ...options, databaseRls: 'off' })
  await using enforce = await openThreadbase({ ...options, databaseRls: 'enforce' })
  try {
    const ofOne = await makePlaces(off, () => 'one')
    const ofMany = await makePlaces(off, (caller) => `user ${caller}`)
    const compare = (work: string, load: (tb: Threadbase) => Promise<number>, target?: number) =>
      compareModes(work, { off: () => load(off), enforce: () => load(enforce) }, target)
    return [
      await compare('append, 16 writers', (tb) => rateOf((n) => append(tb, ofOne[n] as Place)), TARGET),
      // off puts them into one statement, which a policy forbids: what that costs at most
      await compare('append, 16 writers of 16 users', (tb) => rateOf((n) => append(tb, ofMany[n] as Place))),
      await compare('read 50 messages', (tb) => rateOf(() => read(tb, ofOne[0] as Place), 1), TARGET),
      await compare(
        'read 50 messages, 16 users',
        (tb) => rateOf((n) => read(tb, ofMany[n] as Place)),
        TARGET,
      ),
    ]
  } finally {
    await sql`drop schema ${sql.id(options.databaseSchema)} cascade`.execute(off.database.db)
  }
}

async function compareModes(
  work: string,
  contestants: Record<'off' | 'enforce', () => Promise<number>>,
  target: number | undefined,
): Promise<Row> {
  const rates = await alternate(ROUNDS, contestants)
  const ratio = rates.enforce / rates.off
  return {
    work: `${work}, RLS`,
    figure: perSecond(rates.enforce),
    limit: `off ${perSecond(rates.off)}`,
    ratio,
    ...(target === undefined ? {} : { target: `≥ ${target.toFixed(2)}`, met: ratio >= target }),
  }
}

/** A thread for each caller, with messages enough to read. */
function makePlaces(tb: Threadbase, userOf: (caller: number) => string): Promise<Place[]> {
  const messages = Array.from({ length: 100 }, () => ({ role: 'user' as const, content: TEXT }))
  return Promise.all(
    Array.from({ length: CALLERS }, async (_, caller) => {
      const scope = { userId: userOf(caller) }
      const { id: threadId } = await tb.threads.create(scope)
      await tb.messages.append(scope, threadId, messages)
      return { ...scope, threadId }
    }),
  )
}

let sent = 0

async function append(tb: Threadbase, { userId, threadId }: Place): Promise<void> {
  await tb.messages.append({ userId }, threadId, [{ messageId: `m${sent++}`, role: 'user', content: TEXT }])
}

async function read(tb: Threadbase, { userId, threadId }: Place): Promise<void> {
  await tb.messages.list({ userId }, threadId, { limit: 50, before: 101 })
}

/** Calls per second of callers that each wait for their answer. */
async function rateOf(call: (caller: number) => Promise<void>, callers = CALLERS): Promise<number> {
  const started = performance.now()
  const until = started + SECONDS * 1_000
  const counts = await Promise.all(
    Array.from({ length: callers }, async (_, caller) => {
      let count = 0
      for (; performance.now() < until; count++) await call(caller)
      return count
    }),
  )
  return counts.reduce((sum, count) => sum + count, 0) / ((performance.now() - started) / 1_000)
}
