import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import { silentLog } from '../core/log.ts'
import type { NewMessage } from '../messages/schema.ts'
import type { SearchQuery } from './schema.ts'
import { prepareSearch } from './service.ts'

const A = { userId: "al'ice\\" }
const B = { userId: 'bob' }

for (const engine of engines) {
  describe.skipIf(!engine.available)(`text search on ${engine.name}`, () => {
    let opened: TestDatabase
    const say = async (
      messages: (string | NewMessage)[],
      { user = A, ...thread }: { user?: { userId: string }; kind?: 'council'; archived?: boolean } = {},
    ) => {
      const { id } = await opened.tb.threads.create(user, { kind: thread.kind ?? 'chat' })
      await opened.tb.messages.append(
        user,
        id,
        messages.map((one) => (typeof one === 'string' ? { role: 'user', content: one } : one)),
      )
      if (thread.archived) await opened.tb.threads.archive(user, id)
      return id
    }
    const search = (q: string, more: Partial<SearchQuery> = {}, user = A) =>
      opened.tb.search.messages(user, { q, mode: 'text', ...more })
    const found = async (q: string, more: Partial<SearchQuery> = {}) => {
      const { items, method } = await search(q, more)
      return [method, ...items.map(({ thread, message }) => `${threads.get(thread.id)}${message?.seq}`)]
    }
    const threads = new Map<string, string>()
    beforeAll(async () => {
      opened = await engine.open()
      // it is of the whole database, where another may have created it
      await prepareSearch(opened.database, { language: 'english', change: true }, silentLog)
      const name = async (label: string, id: Promise<string>) => void threads.set(await id, label)
      await name('t', say(['We are running late for the theater', 'Error ERR-4711 in /srv/app/my_module.py']))
      await name(
        'u',
        say([
          { role: 'assistant', content: [{ type: 'text', text: 'A hotel in San José, near the museum' }] },
          { role: 'tool', content: '', toolName: 'find_flights', toolOutput: { city: 'Reykjavík', n: 3 } },
          'to be or not to be',
          'مرحبا بالعالم',
          'a\u0000b ???',
        ]),
      )
      await name('a', say(['an archived hotel'], { archived: true }))
      await name('c', say(['a council hotel'], { kind: 'council' }))
      await say(['hotel theater ERR-4711 running to be or not to be ???'], { user: B })
    })
    afterAll(() => opened?.close())

    test.each<[q: string, ...expected: (string | null)[]]>([
      ['run', 'words', 't1'],
      ['theaters late', 'words', 't1'],
      ['theat', 'words', 't1'],
      ['late th', 'words', 't1'],
      ['late the', 'words', 't1'],
      ['late t', 'words', 't1'],
      ['la', 'words', 't1'],
      ['the', 'substring', 't1', 'u1'],
      ['runni', 'words', 't1'],
      ['late runnin', 'words', 't1'],
      ['"running late"', 'words', 't1'],
      // not as a phrase, which is all that is asked for; but spelt alike
      ['"late running"', 'similar', 't1'],
      ['museum or theater', 'words', 't1', 'u1'],
      ['museum or theat', 'words', 't1', 'u1'],
      ['hotel -museum', 'words', 'c1'],
      ['ERR-4711', 'words', 't2'],
      ['RR-47', 'substring', 't2'],
      ['y_modu', 'substring', 't2'],
      ['app/my_mod', 'substring', 't2'],
      ['reykjavík', 'words', 'u2'],
      ['find_flights', 'words', 'u2'],
      ['to be or not to be', 'substring', 'u3'],
      ['مرحبا', 'words', 'u4'],
      ['مرح', 'words', 'u4'],
      ['b ???', 'words', 'u5'],
      ['???', 'substring', 'u5'],
      ['a\u0000b', 'words', 'u5'],
      ['hotel zzzzz', 'any', 'c1', 'u1'],
      ['hotel zzzzz -museum', 'any', 'c1'],
      ['zzzzz', null],
      // a word of what was pasted is enough, its parts are not
      [`RR-47 ${'zz-1 '.repeat(20)}`, null],
      [`hotel ${'zz-1 '.repeat(20)}`, 'any', 'c1', 'u1'],
    ])('%s', async (q, ...expected) => {
      const [method, ...places] = await found(q)
      expect([method, ...places.sort()]).toEqual(expected)
    })

    test('only negations find what has none of them', async () => {
      const [method, ...places] = await found('-hotel')
      expect(method).toBe('words')
      expect(places.sort()).toEqual(['t1', 't2', 'u2', 'u3', 'u4', 'u5'])
    })

    test.each([
      ['nothing', ''],
      ['spaces', ' \n\t '],
      ['too much', 'x'.repeat(10_001)],
      ['100 kB', 'word '.repeat(20_000)],
    ])('%s is refused', async (_, q) => {
      await expect(search(q)).rejects.toMatchObject({ code: 'invalid_input' })
    })

    test.each([
      "'; drop table messages; --",
      '"unbalanced',
      '"',
      '""',
      '-',
      '--',
      '- -',
      '-"',
      'or',
      'or or or',
      'a or',
      '& | ! <-> () : * \\',
      "it's",
      "\\'",
      ':*',
      "hotel':*",
      '\u0001bob',
      '\u0000',
      '\ud800',
      '\u202eletoh',
      '%',
      '_',
      '\\',
      'x'.repeat(10_000),
      'word '.repeat(1_999),
      '- '.repeat(4_999),
      `${'-'.repeat(99)}a`,
      `${'&-'.repeat(99)}a`,
      `${'a or -'.repeat(999)}a`,
      `"${'a-b '.repeat(999)}"`,
      '"'.repeat(9_999),
      '日本語の検索',
      '👩‍👩‍👧‍👦',
      'क्षत्रिय',
      '<b>hotel</b>',
      'a.b.c@example.com/x?y=1&z=2',
    ])('odd query %# has an answer', async (q) => {
      const { items } = await search(q)
      for (const { thread } of items) expect(threads.has(thread.id)).toBe(true)
    })

    test('the tables are still there', async () => {
      expect((await search('museum')).items).toHaveLength(1)
    })

    test('filters', async () => {
      expect(await found('hotel', { includeArchived: true })).toEqual(['words', 'c1', 'a1', 'u1'])
      expect(await found('hotel', { kind: 'council' })).toEqual(['words', 'c1'])
      expect(await found('hotel', { role: 'assistant' })).toEqual(['words', 'u1'])
      expect(await found('hotel', { since: new Date(Date.now() + 60_000) })).toEqual([null])
      expect(await found('hotel', { until: new Date(Date.now() - 60_000) })).toEqual([null])
      const [[thread] = []] = [...threads].filter(([, label]) => label === 'u')
      expect(await found('hotel', { threadId: thread?.toUpperCase() })).toEqual(['words', 'u1'])
      expect(await found('eykja', { threadId: thread, role: 'tool' })).toEqual(['substring', 'u2'])
      expect(await found('eykja', { role: 'user' })).toEqual([null])
    })

    test('a hit tells where it is', async () => {
      const { items, ...how } = await search('museum')
      expect(how).toEqual({ mode: 'text', method: 'words', degraded: null })
      const [hit] = items
      expect(hit).toMatchObject({
        type: 'message',
        snippet: 'A hotel in San José, near the <mark>museum</mark>',
        thread: { title: null, kind: 'chat', archivedAt: null },
        message: { seq: 1, role: 'assistant', messageId: null, toolName: null },
        analysis: null,
      })
      expect(hit?.score).toBeGreaterThan(0)
      expect(hit?.message?.createdAt).toBeInstanceOf(Date)
    })

    test('marks what was found', async () => {
      const snippet = async (q: string) => (await search(q)).items[0]?.snippet
      expect(await snippet('runni')).toContain('<mark>running</mark>')
      expect(await snippet('late theat')).toMatch(/<mark>late<\/mark>.*<mark>theater<\/mark>/)
      expect(await snippet('RR-47')).toContain('E<mark>RR-47</mark>11')
    })

    test('pages follow each other, whatever comes in between', async () => {
      const user = { userId: 'pager' }
      const texts = Array.from({ length: 25 }, (_, i) => `common word ${i % 3 === 0 ? 'common ' : ''}${i}`)
      await say(texts, { user })
      const all = (await search('common', { limit: 100 }, user)).items.map(({ message }) => message?.seq)
      expect(new Set(all).size).toBe(25)
      const seen: (number | undefined)[] = []
      let cursor: string | undefined
      do {
        const page = await search('common', { limit: 4, cursor }, user)
        seen.push(...page.items.map(({ message }) => message?.seq))
        cursor = page.nextCursor
        if (seen.length === 8) await say(['common common common'], { user })
      } while (cursor !== undefined)
      expect(seen).toEqual(all)
    })

    test('a cursor belongs to its query and its user', async () => {
      const { nextCursor: cursor } = await search('hotel', { limit: 1 })
      expect(cursor).toBeDefined()
      expect((await search('hotel', { limit: 9, cursor })).items).toHaveLength(1)
      await expect(search('museum', { cursor })).rejects.toMatchObject({ code: 'invalid_input' })
      await expect(search('hotel', { cursor, role: 'user' })).rejects.toMatchObject({ code: 'invalid_input' })
      await expect(search('hotel', { cursor }, B)).rejects.toMatchObject({ code: 'invalid_input' })
      await expect(search('hotel', { cursor: 'x' })).rejects.toMatchObject({ code: 'invalid_input' })
    })
  })
}
