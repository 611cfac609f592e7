import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import { parseJson } from '../core/json.ts'
import type { AnalysisContent, NewAnalysis } from './schema.ts'

const FULL: AnalysisContent = {
  vulnerabilities: ['slept badly', { text: 'skipped lunch', weight: 3 }],
  chainLinks: [
    { kind: 'event', text: 'no answer', at: '2026-01-31T12:00:00+02:00' },
    { kind: 'thought', text: 'nobody cares' },
    { kind: 'urge', text: 'to drink', at: null, meta: { strength: 8 } },
  ],
  problemBehavior: 'drank',
  promptingEvent: 'an unanswered message',
  consequences: 'missed work',
  solutions: [{ text: 'cold water', skill: 'TIPP' }],
  summary: 'a hard evening',
}
const EMPTY = {
  vulnerabilities: [],
  chainLinks: [],
  problemBehavior: null,
  promptingEvent: null,
  consequences: null,
  solutions: [],
  summary: null,
}

for (const engine of engines) {
  describe.skipIf(!engine.available)(`analyses on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())
    const scope = { userId: 'u' }
    const analyses = () => opened.tb.analyses
    const newSession = async () => (await opened.tb.sessions.create(scope)).id
    const stored = async (id: string) => {
      const { rows } = await sql<{ text: string; embedding_model: string | null }>`
        select text, embedding_model from ${sql.table('chain_analysis_results')} where session_id = ${id}::uuid`.execute(
        opened.database.db,
      )
      return rows[0]
    }

    test('what is put is read, in every field', async () => {
      const id = await newSession()
      expect(await analyses().findAnalysis(scope, id)).toBeUndefined()
      const put = await analyses().put(scope, id, FULL)
      expect(put).toEqual({
        ...FULL,
        sessionId: id,
        version: 1,
        createdAt: expect.any(Date),
        updatedAt: put.createdAt,
      })
      expect(await analyses().getAnalysis(scope, id.toUpperCase())).toEqual(put)
    })

    test('what a put leaves out is empty, what a patch leaves out stays', async () => {
      const id = await newSession()
      expect(await analyses().put(scope, id, { summary: 'first', solutions: null })).toMatchObject({
        ...EMPTY,
        summary: 'first',
      })
      await analyses().put(scope, id, FULL, { ifVersion: 1 })
      const patch = { summary: null, solutions: ['walk'], vulnerabilities: null, problemBehavior: '' }
      expect(await analyses().patch(scope, id, patch, { ifVersion: 2 })).toMatchObject({
        ...FULL,
        ...patch,
        vulnerabilities: [],
        version: 3,
      })
      expect(await analyses().put(scope, id, { summary: 'x' }, { ifVersion: '*' })).toMatchObject({
        ...EMPTY,
        summary: 'x',
        version: 4,
      })
    })

    test('a write over another one says which; any other is a conflict that tells the version', async () => {
      const id = await newSession()
      const conflict = (version: number | null) => ({ code: 'conflict', details: { sessionId: id, version } })
      const put = (summary: string, ifVersion?: number | '*' | 'none') =>
        analyses().put(scope, id, { summary }, { ifVersion })
      await expect(put('a', 1)).rejects.toMatchObject(conflict(null))
      await expect(put('a', '*')).rejects.toMatchObject(conflict(null))
      expect((await put('a', 'none')).version).toBe(1)
      await expect(put('b')).rejects.toMatchObject(conflict(1))
      await expect(put('b', 'none')).rejects.toMatchObject(conflict(1))
      await expect(put('b', 2)).rejects.toMatchObject(conflict(1))
      await expect(analyses().patch(scope, id, { summary: 'b' })).rejects.toMatchObject(conflict(1))
      await expect(
        analyses().patch(scope, id, { summary: 'b' }, { ifVersion: 'none' }),
      ).rejects.toMatchObject(conflict(1))
      await expect(analyses().delete(scope, id, { ifVersion: 2 })).rejects.toMatchObject(conflict(1))
      expect((await put('b', 1)).version).toBe(2)
      expect((await put('c', '*')).version).toBe(3)
      await expect(put('d', 2)).rejects.toMatchObject(conflict(3))
      expect(await analyses().getAnalysis(scope, id)).toMatchObject({ version: 3, summary: 'c' })
    })

    test('a put that is repeated changes nothing, but for one that is to find nothing', async () => {
      const id = await newSession()
      const first = await analyses().put(scope, id, FULL)
      expect(await analyses().put(scope, id, FULL)).toEqual(first)
      const second = await analyses().put(scope, id, { summary: 'b' }, { ifVersion: 1 })
      for (const ifVersion of [undefined, 1, 2, '*'] as const)
        expect(await analyses().put(scope, id, { summary: 'b' }, { ifVersion })).toEqual(second)
      for (const ifVersion of ['none', 3] as const)
        await expect(analyses().put(scope, id, { summary: 'b' }, { ifVersion })).rejects.toMatchObject({
          code: 'conflict',
        })
      expect(await analyses().patch(scope, id, { summary: 'b' }, { ifVersion: 2 })).toEqual(second)
      expect((await analyses().listVersions(scope, id)).items).toHaveLength(2)
    })

    test('earlier versions are kept, are listed newest first, and can be restored', async () => {
      const id = await newSession()
      expect(await analyses().listVersions(scope, id)).toEqual({ items: [] })
      await analyses().put(scope, id, FULL)
      for (let n = 1; n < 7; n++)
        await analyses().patch(scope, id, { summary: `v${n + 1}` }, { ifVersion: n })
      const first = await analyses().listVersions(scope, id, { limit: 3 })
      expect(first.items.map(({ version }) => version)).toEqual([7, 6, 5])
      const second = await analyses().listVersions(scope, id, { limit: 3, cursor: first.nextCursor })
      expect(second.items.map(({ version }) => version)).toEqual([4, 3, 2])
      const third = await analyses().listVersions(scope, id, { limit: 3, cursor: second.nextCursor })
      expect(third).toEqual({ items: [expect.objectContaining({ version: 1 })] })
      const all = [...first.items, ...second.items, ...third.items]
      expect(all[0]?.replacedAt).toBeNull()
      for (const [i, { replacedAt }] of all.entries())
        if (i > 0) expect(replacedAt?.getTime()).toBeGreaterThanOrEqual(all[i - 1]?.writtenAt.getTime() ?? 0)

      expect(await analyses().getVersion(scope, id, 7)).toMatchObject({
        version: 7,
        analysis: { summary: 'v7' },
      })
      const old = await analyses().getVersion(scope, id, 1)
      expect(old).toEqual({ sessionId: id, ...all.at(-1), analysis: FULL })
      const restored = await analyses().put(scope, id, old.analysis, { ifVersion: 7 })
      expect(restored).toMatchObject({ ...FULL, version: 8 })
      await expect(analyses().getVersion(scope, id, 9)).rejects.toMatchObject({ code: 'not_found' })
    })

    test('what is deleted is gone with its versions, and its numbers are not used again', async () => {
      const id = await newSession()
      expect(await analyses().delete(scope, id)).toBe(false)
      await analyses().put(scope, id, { summary: 'secret one' })
      await analyses().put(scope, id, { summary: 'secret two' }, { ifVersion: 1 })
      expect(await analyses().delete(scope, id, { ifVersion: 2 })).toBe(true)
      expect(await analyses().delete(scope, id, { ifVersion: 2 })).toBe(false)
      expect(await analyses().findAnalysis(scope, id)).toBeUndefined()
      expect(await analyses().listVersions(scope, id)).toEqual({ items: [] })
      for (const n of [1, 2])
        await expect(analyses().getVersion(scope, id, n)).rejects.toMatchObject({ code: 'not_found' })
      const kept = await sql`select result from ${sql.table('chain_analysis_versions')}
        where session_id = ${id}::uuid`.execute(opened.database.db)
      expect(kept.rows).toEqual([{ result: null }])

      for (const ifVersion of [1, 2, 3])
        await expect(analyses().put(scope, id, { summary: 'new' }, { ifVersion })).rejects.toMatchObject({
          code: 'conflict',
        })
      expect(await analyses().put(scope, id, { summary: 'new' })).toMatchObject({
        version: 3,
        summary: 'new',
      })
      for (const ifVersion of [1, 2])
        await expect(analyses().put(scope, id, { summary: 'stale' }, { ifVersion })).rejects.toMatchObject({
          code: 'conflict',
          details: { version: 3 },
        })
      await analyses().delete(scope, id)
      await analyses().delete(scope, id)
      expect((await analyses().put(scope, id, { summary: 'again' }, { ifVersion: 'none' })).version).toBe(4)
      expect((await analyses().listVersions(scope, id)).items).toHaveLength(1)
    })

    test('the thread takes the analysis and all versions with it', async () => {
      const id = await newSession()
      await analyses().put(scope, id, { summary: 'a' })
      await analyses().put(scope, id, { summary: 'b' }, { ifVersion: 1 })
      await opened.tb.threads.delete(scope, id)
      for (const table of ['chain_analysis_results', 'chain_analysis_versions']) {
        const { rows } = await sql`select from ${sql.table(table)} where session_id = ${id}::uuid`.execute(
          opened.database.db,
        )
        expect(rows).toEqual([])
      }
      await expect(analyses().findAnalysis(scope, id)).rejects.toMatchObject({ code: 'not_found' })
    })

    test('a fork has the messages and not the analysis', async () => {
      const id = await newSession()
      await analyses().put(scope, id, FULL)
      const fork = await opened.tb.threads.fork(scope, id)
      expect(fork.kind).toBe('chain_analysis')
      expect(await analyses().findAnalysis(scope, fork.id)).toBeUndefined()
    })

    test('a thread of another kind is no session', async () => {
      const { id } = await opened.tb.threads.create(scope, { kind: 'chat' })
      const message = `thread ${id} is no session: it is of kind chat, not chain_analysis`
      for (const call of [
        () => analyses().findAnalysis(scope, id),
        () => analyses().getAnalysis(scope, id),
        () => analyses().put(scope, id, FULL),
        () => analyses().patch(scope, id, FULL, { ifVersion: 1 }),
        () => analyses().listVersions(scope, id),
        () => analyses().getVersion(scope, id, 1),
      ])
        await expect(call()).rejects.toMatchObject({ code: 'not_found', message })
      expect(await analyses().delete(scope, id)).toBe(false)
    })

    test('of no session, and of none that has an analysis, things are not found', async () => {
      const id = await newSession()
      for (const call of [
        () => analyses().getAnalysis(scope, id),
        () => analyses().patch(scope, id, FULL, { ifVersion: '*' }),
        () => analyses().getVersion(scope, id, 1),
        () => analyses().put(scope, randomUUID(), FULL),
        () => analyses().findAnalysis(scope, randomUUID()),
      ])
        await expect(call()).rejects.toMatchObject({ code: 'not_found' })
    })

    test('NUL, halves of surrogate pairs, long numbers and odd keys come back as they were', async () => {
      const id = await newSession()
      const odd = 'a\0b\ud800c\udfffd\uffffe\uffff0000'
      const content = parseJson(
        '{"n":9007199254740993,"e":1e400,"__proto__":{"a":1},"text":"x","\\u0000":"\\u0000","":[[]]}',
      ) as { text: string }
      const analysis: NewAnalysis = {
        vulnerabilities: [odd, content],
        chainLinks: [{ kind: 'action', text: odd, meta: { [odd]: odd } }],
        problemBehavior: odd,
        promptingEvent: '\0',
        consequences: '',
        solutions: [content],
        summary: '\uffff',
      }
      const first = await analyses().put(scope, id, analysis)
      expect(JSON.stringify(first.vulnerabilities)).toContain('9007199254740993')
      expect(first).toMatchObject({ ...analysis, version: 1 })
      // as it is compared with what is stored, too
      expect((await analyses().put(scope, id, analysis)).version).toBe(1)
      await analyses().put(scope, id, { summary: 'x' }, { ifVersion: 1 })
      expect((await analyses().getVersion(scope, id, 1)).analysis).toEqual(
        expect.objectContaining({ ...analysis, problemBehavior: odd }),
      )
    })

    test('the text for search is made anew with each version, and waits for its embedding', async () => {
      const id = await newSession()
      await analyses().put(scope, id, FULL)
      expect((await stored(id))?.text).toContain('cold water TIPP')
      const setModel = sql`update ${sql.table('chain_analysis_results')} set embedding_model = 'm'
        where session_id = ${id}::uuid`
      await setModel.execute(opened.database.db)
      await analyses().put(scope, id, FULL, { ifVersion: 1 })
      expect((await stored(id))?.embedding_model).toBe('m')
      await analyses().patch(scope, id, { solutions: ['call a friend'] }, { ifVersion: 1 })
      expect(await stored(id)).toEqual({
        text: expect.stringMatching(/missed work\ncall a friend$/),
        embedding_model: null,
      })
      const words = sql<{
        found: boolean
      }>`select words @@ to_tsquery('friend') and not words @@ to_tsquery('tipp') as found
        from ${sql.table('chain_analysis_results')} where session_id = ${id}::uuid`
      expect((await words.execute(opened.database.db)).rows).toEqual([{ found: true }])
    })

    const LONG = 'x'.repeat(10_001)
    test.each<[unknown, RegExp]>([
      [{}, /./],
      [null, /./],
      [[], /./],
      [{ version: 1, summary: 'x' }, /not known: version/],
      [{ summary: 5 }, /summary must be string/],
      [{ summary: 'x'.repeat(100_001) }, /summary/],
      [{ chainLinks: [{ kind: 'feeling', text: 'x' }] }, /chainLinks.0.kind must be one of: event, thought/],
      [{ chainLinks: [{ text: 'x' }] }, /chainLinks.0 lacks a required field: kind/],
      [{ chainLinks: [{ kind: 'event' }] }, /chainLinks.0 lacks a required field: text/],
      [{ chainLinks: [{ kind: 'event', text: '' }] }, /chainLinks.0.text/],
      [{ chainLinks: [{ kind: 'event', text: LONG }] }, /chainLinks.0.text/],
      [{ chainLinks: [{ kind: 'event', text: 'x', intensity: 1 }] }, /not known: intensity/],
      [{ chainLinks: [{ kind: 'event', text: 'x', at: 'noon' }] }, /at must be an RFC 3339 time/],
      [
        { chainLinks: [{ kind: 'event', text: 'x', at: '2026-02-30T12:00:00Z' }] },
        /is not a date that exists/,
      ],
      [{ chainLinks: ['x'] }, /chainLinks.0 must be object/],
      [{ chainLinks: 'x' }, /chainLinks must be array/],
      [{ chainLinks: Array(1_001).fill({ kind: 'event', text: 'x' }) }, /chainLinks/],
      [{ vulnerabilities: [5] }, /vulnerabilities.0/],
      [{ vulnerabilities: [{ note: 'x' }] }, /vulnerabilities.0/],
      [{ solutions: [''] }, /solutions.0/],
      [{ solutions: [{ text: 'x', deep: nest(501) }] }, /nested deeper than 500 levels/],
    ])('%# is invalid input', async (input, message) => {
      const id = await newSession()
      for (const call of [
        () => analyses().put(scope, id, input as never),
        () =>
          analyses()
            .put(scope, id, FULL)
            .then(() => analyses().patch(scope, id, input as never, { ifVersion: '*' })),
      ])
        await expect(call()).rejects.toMatchObject({
          code: 'invalid_input',
          message: expect.stringMatching(message),
        })
      expect(await analyses().findAnalysis(scope, id)).toMatchObject({ version: 1 })
    })

    test.each([0, -1, 1.5, 2 ** 31, '1', 'any', Number.NaN])('version %j is none', async (version) => {
      const id = await newSession()
      const options = { ifVersion: version as never }
      for (const call of [
        () => analyses().put(scope, id, FULL, options),
        () => analyses().patch(scope, id, FULL, options),
        () => analyses().delete(scope, id, options),
        () => analyses().getVersion(scope, id, version as never),
      ])
        await expect(call()).rejects.toMatchObject({ code: 'invalid_input' })
    })

    test('one that is larger than a million characters is too large', async () => {
      const id = await newSession()
      const list = (n: number) => Array(n).fill('x'.repeat(10_000))
      await expect(analyses().put(scope, id, { solutions: list(101) })).rejects.toMatchObject({
        code: 'too_large',
      })
      await analyses().put(scope, id, { solutions: list(99) })
      const patch = { vulnerabilities: list(2) }
      await expect(analyses().patch(scope, id, patch, { ifVersion: 1 })).rejects.toMatchObject({
        code: 'too_large',
      })
    })
  })
}

function nest(levels: number): unknown {
  let value: unknown = 1
  for (let i = 0; i < levels; i++) value = [value]
  return value
}
