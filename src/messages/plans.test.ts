import { randomUUID } from 'node:crypto'
import { type Kysely, sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import { explain, type Plan } from '../../test/plans.ts'
import type { Db, Schema } from '../db/schema.ts'
import * as repo from './repo.ts'
import type { NewMessage } from './schema.ts'

/** The index of each scan of the messages, by the alias that the statement has for them. */
function indexes(plan: Plan): string[] {
  const own =
    plan['Relation Name'] === 'messages' && 'Node Type' in plan ? [`${plan.Alias} ${plan['Index Name']}`] : []
  return [...own, ...(plan.Plans ?? []).flatMap(indexes)]
}

/** Rows that were read in vain: by a filter, a join filter or a recheck; all that a sequential scan reads counts. */
function countWasted(plan: Plan): number {
  const loops = Number(plan['Actual Loops'])
  const removed = Object.entries(plan).reduce(
    (sum, [key, value]) => (key.startsWith('Rows Removed') ? sum + Number(value) * loops : sum),
    0,
  )
  return (plan.Plans ?? []).reduce((sum, inner) => sum + countWasted(inner), removed)
}

function countRead(plan: Plan): number {
  const own =
    plan['Relation Name'] === 'messages' ? Number(plan['Actual Rows']) * Number(plan['Actual Loops']) : 0
  return (plan.Plans ?? []).reduce((sum, inner) => sum + countRead(inner), own)
}

// A connection keeps the plan of a statement that it made while the store was new.
test('a plan made for an empty table on pglite finds messages by seq', async () => {
  const opened = await (engines[0] as (typeof engines)[number]).open()
  try {
    const db = opened.database.forUser('u')
    const thread = randomUUID()
    const range = { order: 'asc', limit: 50 } as const
    for (const work of [
      (on: Db) => repo.listMessages(on, 'u', thread, range),
      (on: Db) => repo.listStretches(on, 'u', thread, [{ first: 1, last: 2 }], range),
      (on: Db) => repo.listTurns(on, 'u', thread, { after: 0, last: 9 }),
      (on: Db) => repo.listDigests(on, 'u', [thread]),
    ]) {
      const [plan] = await explain(db, work, 'generic_plan')
      for (const index of indexes(plan as Plan)) expect(index).toMatch(/ messages_pkey$/)
    }
    const [get] = await explain(db, (on) => repo.findMessage(on, 'u', thread, thread), 'generic_plan')
    expect(indexes(get as Plan).sort()).toEqual(['m messages_by_id', 'p messages_pkey'])
  } finally {
    await opened.close()
  }
})

// Neither store has statistics here: the embedded one never does. Each statement must find its rows by key.
for (const engine of engines) {
  describe.skipIf(!engine.available)(`plans on ${engine.name}`, () => {
    const SIZE = 5_000
    const userId = 'planner'
    let opened: TestDatabase
    let db: Kysely<Schema>
    let thread: string
    let ids: string[]
    beforeAll(async () => {
      opened = await engine.open()
      const { db: system, forUser } = opened.database
      db = forUser(userId)
      await sql`alter table ${sql.table('messages')} set (autovacuum_enabled = off)`.execute(system)
      thread = (await opened.tb.threads.create({ userId })).id
      const message = (n: number): NewMessage => ({
        role: 'user',
        messageId: `m${n}`,
        content: `message ${n}`,
      })
      const messages = Array.from({ length: SIZE }, (_, n) => message(n))
      const others = Array.from({ length: 60 }, async () => {
        const { id } = await opened.tb.threads.create({ userId })
        return { threadId: id, messages: messages.slice(0, 50) }
      })
      const calls = [...(await Promise.all(others)), { threadId: thread, messages }]
      await opened.tb.messages.appendMany({ userId }, calls)
      ids = []
      for await (const page of opened.tb.messages.readPath({ userId }, thread, SIZE))
        ids.push(...page.map(({ id }) => id))
      expect(ids).toHaveLength(SIZE)
    })
    afterAll(() => opened?.close())

    const middle = { before: 3_000, after: 1_000, limit: 50 }
    const id = () => ids[SIZE - 5] as string
    const stretches = [
      { first: 2_000, last: 2_020 },
      { first: 1_000, last: 1_040 },
    ]
    test.each<[string, number, (db: Db) => Promise<unknown>]>([
      ['list', 110, (on) => repo.listMessages(on, userId, thread, { order: 'desc', limit: 50 })],
      [
        'list from the middle',
        110,
        (on) => repo.listMessages(on, userId, thread, { ...middle, order: 'asc' }),
      ],
      [
        'stretches',
        130,
        (on) => repo.listStretches(on, userId, thread, stretches, { order: 'desc', limit: 50 }),
      ],
      ['seq', 1, (on) => repo.findSeq(on, userId, thread, id())],
      ['get', 2, (on) => repo.findMessage(on, userId, thread, id())],
      ['patch', 3, (on) => repo.patchMeta(on, userId, thread, id(), { a: 1 })],
      ['delete near the end', 10, (on) => repo.deleteMessage(on, userId, thread, id())],
      ['digests', SIZE, (on) => repo.listDigests(on, userId, [thread])],
    ])('%s reads the rows it needs', async (_, most, work) => {
      const plans = await explain(db, work)
      expect(plans).toHaveLength(1)
      const plan = plans[0] as Plan
      const told = JSON.stringify(plan, null, 1)
      expect(countWasted(plan), told).toBeLessThan(10)
      expect(countRead(plan), told).toBeLessThanOrEqual(most)
    })

    test('turns look at each message of their range once', async () => {
      const range = { after: 2_000, last: 2_500 }
      const [plan] = await explain(db, (on) => repo.listTurns(on, userId, thread, range))
      const told = JSON.stringify(plan, null, 1)
      expect(countWasted(plan as Plan) + countRead(plan as Plan), told).toBeLessThanOrEqual(500)
    })
  })
}
