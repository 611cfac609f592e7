import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import { explain, type Plan } from '../../test/plans.ts'
import { listSessions } from './sessions/repo.ts'

for (const engine of engines) {
  describe.skipIf(!engine.available)(`sessions on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())
    const newScope = () => ({ userId: randomUUID() })

    test('one is a thread of its kind, with when it started and ended', async () => {
      const scope = newScope()
      const { sessions, threads, messages, analyses } = opened.tb
      const made = await sessions.create(scope, { title: 'Evening', meta: { a: 1 }, type: 'chain_analysis' })
      const thread = await threads.getThread(scope, made.id)
      expect(made).toEqual({
        id: thread.id,
        userId: scope.userId,
        type: 'chain_analysis',
        title: 'Evening',
        meta: { a: 1 },
        lastSeq: 0,
        startedAt: thread.createdAt,
        endedAt: null,
        archivedAt: null,
        analysisVersion: null,
      })
      expect(thread.kind).toBe('chain_analysis')
      await messages.append(scope, made.id, [{ role: 'user', content: 'x' }])
      await analyses.put(scope, made.id, { summary: 'x' })
      const ended = await sessions.end(scope, made.id)
      expect(ended).toEqual({ ...made, lastSeq: 1, analysisVersion: 1, endedAt: expect.any(Date) })
      expect(await sessions.end(scope, made.id)).toEqual(ended)
      expect((await threads.getThread(scope, made.id)).endedAt).toEqual(ended.endedAt)
      // a session that ended can still be worked on
      await messages.append(scope, made.id, [{ role: 'assistant', content: 'y' }])
      await analyses.patch(scope, made.id, { summary: 'y' }, { ifVersion: 1 })
      expect(await sessions.getSession(scope, made.id)).toMatchObject({ lastSeq: 2, analysisVersion: 2 })
    })

    test('a thread of the kind is a session, of another kind is none', async () => {
      const scope = newScope()
      const { sessions, threads } = opened.tb
      const thread = await threads.create(scope, { kind: 'chain_analysis', title: 'by hand' })
      const chat = await threads.create(scope, { kind: 'chat' })
      expect((await sessions.list(scope)).items.map(({ id }) => id)).toEqual([thread.id])
      expect(await sessions.findSession(scope, chat.id)).toBeUndefined()
      for (const call of [sessions.getSession, sessions.end])
        await expect(call(scope, chat.id)).rejects.toMatchObject({
          code: 'not_found',
          message: expect.stringContaining('of kind chat'),
        })
      expect((await threads.getThread(scope, chat.id)).endedAt).toBeNull()
      await expect(sessions.create(scope, { id: chat.id })).rejects.toMatchObject({ code: 'conflict' })
    })

    test('an id of its own makes one session, whichever way it is made', async () => {
      const scope = newScope()
      const { sessions, threads } = opened.tb
      const body = { id: randomUUID(), title: 'once' }
      const first = await sessions.createOrFind(scope, body)
      const again = await sessions.createOrFind(scope, { ...body, type: 'chain_analysis' })
      expect([first.created, again]).toEqual([true, { session: first.session, created: false }])
      expect((await threads.createOrFind(scope, { ...body, kind: 'chain_analysis' })).created).toBe(false)
      await expect(sessions.create(scope, { ...body, title: 'other' })).rejects.toMatchObject({
        code: 'conflict',
      })
    })

    test('lists page from the newest start, and choose', async () => {
      const scope = newScope()
      const { sessions, threads } = opened.tb
      // three of each start, in no order of their ids
      const starts = Array.from({ length: 21 }, (_, i) => new Date(Date.UTC(2026, 0, 1 + (i % 7))))
      const rows = starts.map((createdAt, i) => ({
        ...{ id: randomUUID(), title: `${i}`, meta: {}, createdAt },
        kind: i % 3 === 2 ? ('chat' as const) : ('chain_analysis' as const),
      }))
      await threads.createMany(scope, rows)
      const own = rows.filter(({ kind }) => kind === 'chain_analysis')
      for (const { id } of own.slice(0, 4)) await sessions.end(scope, id)
      for (const { id } of own.slice(2, 6)) await threads.archive(scope, id)
      const order = own
        .toSorted((a, b) => b.createdAt.getTime() - a.createdAt.getTime() || (a.id < b.id ? 1 : -1))
        .map(({ id }) => id)
      const read = async (query: object) => {
        const found: string[] = []
        let cursor: string | undefined
        do {
          const page = await sessions.list(scope, { ...query, limit: 3, cursor })
          expect(page.items.length).toBeLessThanOrEqual(3)
          found.push(...page.items.map(({ id }) => id))
          cursor = page.nextCursor
        } while (cursor !== undefined)
        return found
      }
      const of = (list: typeof own) => order.filter((id) => list.some((one) => one.id === id))
      expect(await read({ includeArchived: true })).toEqual(order)
      expect(await read({})).toEqual(of([...own.slice(0, 2), ...own.slice(6)]))
      expect(await read({ ended: true })).toEqual(of(own.slice(0, 2)))
      expect(await read({ ended: true, includeArchived: true })).toEqual(of(own.slice(0, 4)))
      expect(await read({ ended: false, includeArchived: true })).toEqual(of(own.slice(4)))
      expect(await read({ ended: false })).toEqual(of(own.slice(6)))
    })

    test.each([
      { limit: 0 },
      { limit: 101 },
      { ended: 'yes' },
      { kind: 'chat' },
      { cursor: 'x' },
      { cursor: Buffer.from('["sessions",1,"x"]').toString('base64url') },
      { cursor: Buffer.from('["threads",1,"0192f0c1-2f6b-7cc0-8d2e-5f0a6d2f4b11"]').toString('base64url') },
    ])('the query %j is refused', async (query) => {
      await expect(opened.tb.sessions.list(newScope(), query as never)).rejects.toMatchObject({
        code: 'invalid_input',
      })
    })

    test.each([{ kind: 'chat' }, { type: 'chat' }, { title: 'a\0' }, { id: 'x' }, { startedAt: 'now' }])(
      'the session %j is refused',
      async (body) => {
        await expect(opened.tb.sessions.create(newScope(), body as never)).rejects.toMatchObject({
          code: 'invalid_input',
        })
      },
    )

    test('a page is read from the index of sessions, whatever else the user has', async () => {
      const scope = newScope()
      const db = opened.database.forUser(scope.userId)
      await sql`insert into ${sql.table('threads')} (user_id, id, kind, created_at)
        select ${scope.userId}, gen_random_uuid(), case when i % 10 = 0 then 'chain_analysis' else 'chat' end,
               now() - i * interval '1 minute'
          from generate_series(1, 5000) i`.execute(opened.database.db)
      const after = { startedAt: new Date(Date.now() - 3_600_000), id: randomUUID() }
      const [plan] = await explain(db, (on) => listSessions(on, scope.userId, { limit: 20, after }))
      const scan = findScan(plan as Plan)
      expect(scan).toMatchObject({ 'Index Name': 'threads_sessions', 'Actual Rows': 20 })
    })
  })
}

function findScan(plan: Plan): Plan | undefined {
  if (plan['Relation Name'] === 'threads') return plan
  for (const inner of plan.Plans ?? []) {
    const found = findScan(inner)
    if (found !== undefined) return found
  }
  return undefined
}
