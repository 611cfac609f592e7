import type { CompiledQuery, Kysely } from 'kysely'
import type { Db, Schema } from '../src/db/schema.ts'

/** A node of what `explain (format json)` says. */
export type Plan = Record<string, unknown> & { Plans?: Plan[] }

class RolledBack extends Error {}

/** Does some work in a transaction of which nothing stays. */
export async function rolledBack(db: Kysely<Schema>, work: (tx: Db) => Promise<unknown>): Promise<void> {
  const done = db.transaction().execute(async (tx) => {
    await work(tx)
    throw new RolledBack()
  })
  await done.catch((error) => {
    if (!(error instanceof RolledBack)) throw error
  })
}

/** The plans of the statements that some work sends, as they ran; nothing of it stays. */
export async function explain(
  db: Kysely<Schema>,
  work: (db: Db) => Promise<unknown>,
  how: 'analyze' | 'generic_plan' = 'analyze',
): Promise<Plan[]> {
  const sent: CompiledQuery[] = []
  const recording = db.withPlugin({
    transformQuery({ node, queryId }) {
      sent.push(db.getExecutor().compileQuery(node, queryId))
      return node
    },
    transformResult: async ({ result }) => result,
  })
  await rolledBack(recording, work)
  const plans: Plan[] = []
  for (const query of sent) {
    await rolledBack(db, async (tx) => {
      const text = `explain (${how}, format json) ${query.sql}`
      const { rows } = await tx.executeQuery<{ 'QUERY PLAN': { Plan: Plan }[] }>({
        ...query,
        sql: text,
        parameters: how === 'analyze' ? query.parameters : [],
      })
      plans.push(rows[0]?.['QUERY PLAN'][0]?.Plan as Plan)
    })
  }
  return plans
}
