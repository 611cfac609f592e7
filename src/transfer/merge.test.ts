import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import {
  canonicalLines,
  exportAll,
  importText,
  readSample,
  SAMPLE_CHATGPT,
  toLines,
} from '../../test/transfer.ts'
import type { Threadbase } from '../threadbase.ts'
import { threadIdOf } from './ids.ts'

const user = (content: unknown) => ({ role: 'user' as const, content })
const UUID = '6a1d3d0f-4b7e-4c39-9a55-0d4f1a7e9b10'

let users = 0
const newUser = () => `merger ${++users}`

for (const engine of engines) {
  describe.skipIf(!engine.available)(`import into threads that live on ${engine.name}`, () => {
    let store: TestDatabase
    let tb: Threadbase
    beforeAll(async () => {
      store = await engine.open()
      tb = store.tb
    })
    afterAll(() => store?.close())

    const lineOf = async (userId: string) => JSON.parse(await exportAll(tb, userId))

    test('a thread that was never imported takes only a line equal to its export', async () => {
      const scope = { userId: newUser() }
      const { id } = await tb.threads.create(scope, { title: 'Own' })
      await tb.messages.append(scope, id, [user('a'), user('b')])
      const line = await lineOf(scope.userId)
      expect(line).toEqual({ id, title: 'Own', messages: [user('a'), user('b')] })
      const report = await importText(
        tb,
        scope.userId,
        toLines(
          line,
          { ...line, messages: [user('a')] },
          { ...line, title: 'x' },
          { ...line, messages: [...line.messages, user('c')] },
        ),
      )
      expect(report).toMatchObject({ known: 2, refused: 2, messages: 0 })
      expect(report.refusals.map(({ reason }) => reason)).toEqual([
        `thread ${id} exists and is another one: its other fields differ`,
        `thread ${id} exists and is another one: the line has more messages`,
      ])
    })

    test('an imported thread that went on here: its file, its export and their continuations', async () => {
      const scope = { userId: newUser() }
      const id = threadIdOf('m')
      const line = { id: 'm', messages: [user('0'), user('1')] }
      await importText(tb, scope.userId, toLines(line))
      await tb.messages.append(scope, id, [user('own')])
      expect(await importText(tb, scope.userId, toLines(line))).toMatchObject({ known: 1 })
      const exported = await lineOf(scope.userId)
      expect(exported.messages).toEqual([user('0'), user('1'), user('own')])
      expect(await importText(tb, scope.userId, toLines(exported))).toMatchObject({ known: 1 })
      // the export went on elsewhere
      const continued = { ...exported, messages: [...exported.messages, user('after')] }
      expect(await importText(tb, scope.userId, toLines(continued))).toMatchObject({
        extended: 1,
        messages: 1,
      })
      expect(await lineOf(scope.userId)).toEqual(continued)
      expect(await importText(tb, scope.userId, toLines(continued))).toMatchObject({ known: 1 })
    })

    test('a file that went on where this thread went on otherwise makes a branch', async () => {
      const scope = { userId: newUser() }
      const line = { id: 'm', messages: [user('0'), user('1')] }
      await importText(tb, scope.userId, toLines(line))
      await tb.messages.append(scope, threadIdOf('m'), [user('own')])
      const grown = { id: 'm', messages: [...line.messages, user('2'), user('3')] }
      expect(await importText(tb, scope.userId, toLines(grown))).toMatchObject({ extended: 1, messages: 2 })
      expect(await lineOf(scope.userId)).toEqual(grown)
      const { items } = await tb.messages.list(scope, threadIdOf('m'))
      expect(items.map(({ text }) => text)).toEqual(['0', '1', 'own', '2', '3'])
      expect(items[3]?.parentId).toBe(items[1]?.id)
      expect(await importText(tb, scope.userId, toLines(grown))).toMatchObject({ known: 1 })
    })

    test('a title, an archive mark and notes of this side stay; a message that was deleted stays away', async () => {
      const scope = { userId: newUser() }
      const id = threadIdOf('t')
      const line = { id: 't', title: 'From the file', messages: [user('0'), user('1'), user('2')] }
      await importText(tb, scope.userId, toLines(line))
      await tb.threads.update(scope, id, { title: 'Mine', meta: { pinned: true } })
      await tb.threads.archive(scope, id)
      const { items } = await tb.messages.list(scope, id)
      await tb.messages.update(scope, id, items[0]?.id ?? '', { meta: { rating: 5 } })
      await tb.messages.delete(scope, id, items[1]?.id ?? '')
      expect(await importText(tb, scope.userId, toLines(line))).toMatchObject({ known: 1, messages: 0 })
      const grown = { ...line, messages: [...line.messages, user('3')] }
      expect(await importText(tb, scope.userId, toLines(grown))).toMatchObject({ extended: 1, messages: 1 })
      const thread = await tb.threads.getThread(scope, id)
      expect(thread).toMatchObject({ title: 'Mine', meta: { pinned: true }, archivedAt: expect.any(Date) })
      expect(await lineOf(scope.userId)).toEqual({
        id: 't',
        title: 'Mine',
        messages: [user('0'), user('2'), user('3')],
      })
    })

    test('messages that were deleted at the end stay deleted, also when the line or the thread went on', async () => {
      const scope = { userId: newUser() }
      const line = { id: 'e', messages: [user('0'), user('1'), user('2')] }
      const id = threadIdOf('e')
      const import_ = (messages: unknown[]) => importText(tb, scope.userId, toLines({ ...line, messages }))
      await import_(line.messages)
      const { items } = await tb.messages.list(scope, id)
      for (const item of items.slice(1)) await tb.messages.delete(scope, id, item.id)
      for (let i = 0; i < 2; i++)
        expect(await import_(line.messages)).toMatchObject({ known: 1, messages: 0 })
      expect(await import_([...line.messages, user('3')])).toMatchObject({ extended: 1, messages: 1 })
      expect((await lineOf(scope.userId)).messages).toEqual([user('0'), user('3')])
      expect(await import_([...line.messages, user('3')])).toMatchObject({ known: 1, messages: 0 })
      await tb.messages.delete(scope, id, (await tb.messages.list(scope, id)).items[1]?.id ?? '')
      await tb.messages.append(scope, id, [user('own')])
      expect(await import_([...line.messages, user('3')])).toMatchObject({ known: 1, messages: 0 })
      expect((await lineOf(scope.userId)).messages).toEqual([user('0'), user('own')])
    })

    test('an interrupted import is completed, also when the thread went on meanwhile', async () => {
      const scope = { userId: newUser() }
      for (const [name, own] of [
        ['i', []],
        ['j', [user('own'), user('own 2'), user('own 3')]],
      ] as const) {
        const line = { id: name, messages: [user('0'), user('1'), user('2')] }
        await importText(tb, scope.userId, toLines(line))
        const id = threadIdOf(name)
        const { meta } = await tb.threads.getThread(scope, id)
        await tb.threads.delete(scope, id)
        await tb.threads.create(scope, { id, meta })
        await tb.messages.append(scope, id, [{ ...user('0'), messageId: 'import:0', parentId: null }, ...own])
        expect(await importText(tb, scope.userId, toLines(line))).toMatchObject({ messages: 2, refused: 0 })
        expect(await importText(tb, scope.userId, toLines(line))).toMatchObject({ known: 1, messages: 0 })
      }
    })

    test('a fork is exported as a thread of its own', async () => {
      const scope = { userId: newUser() }
      await importText(tb, scope.userId, toLines({ id: 'f', x: 1, messages: [user('0'), user('1')] }))
      const fork = await tb.threads.fork(scope, threadIdOf('f'), { at: 1 })
      const exported = await exportAll(tb, scope.userId)
      expect(canonicalLines(exported).sort()).toEqual(
        canonicalLines(
          toLines(
            { id: 'f', x: 1, messages: [user('0'), user('1')] },
            { id: fork.id, x: 1, messages: [user('0')] },
          ),
        ).sort(),
      )
      expect(await importText(tb, scope.userId, exported)).toMatchObject({ known: 2 })
    })

    test('users have their own threads of one file', async () => {
      const [a, b] = [newUser(), newUser()]
      const line = toLines({ id: UUID, messages: [user('0')] })
      for (const userId of [a, b]) expect(await importText(tb, userId, line)).toMatchObject({ imported: 1 })
      await tb.threads.delete({ userId: a }, UUID)
      expect(await exportAll(tb, a)).toBe('')
      expect(canonicalLines(await exportAll(tb, b))).toEqual(canonicalLines(line))
    })

    test('two imports of one file at the same moment store every message once', async () => {
      const userId = newUser()
      const lines = Array.from({ length: 150 }, (_, i) => ({
        id: `p${i}`,
        messages: [user('0'), user(i), user('2')],
      }))
      const reports = await Promise.all([1, 2, 3].map(() => importText(tb, userId, toLines(...lines))))
      expect(reports.reduce((sum, { messages }) => sum + messages, 0)).toBe(450)
      expect(reports.map(({ refused }) => refused)).toEqual([0, 0, 0])
      expect(canonicalLines(await exportAll(tb, userId)).sort()).toEqual(
        canonicalLines(toLines(...lines)).sort(),
      )
    })

    describe('ChatGPT', () => {
      const sample = readSample(SAMPLE_CHATGPT)
      const [boat] = JSON.parse(sample)

      test('conversations keep their branches and times; the path to the newest message is exported', async () => {
        const scope = { userId: newUser() }
        expect(await importText(tb, scope.userId, sample)).toMatchObject({
          format: 'chatgpt',
          imported: 3,
          messages: 13,
        })
        const thread = await tb.threads.getThread(scope, UUID)
        expect([thread.title, thread.createdAt.toISOString(), thread.updatedAt.toISOString()]).toEqual([
          'Naming a boat',
          '2023-11-14T22:13:20.123Z',
          '2023-11-14T22:20:00.123Z',
        ])
        const { items } = await tb.messages.list(scope, UUID)
        const parentOf = (text: string) => {
          const child = items.find((item) => item.text === text)
          return items.find(({ id }) => id === child?.parentId)?.text
        }
        expect(['First answer: Petrel', 'Second answer: Halcyon'].map(parentOf)).toEqual([
          'Name my boat.',
          'Name my boat.',
        ])
        expect(['Why that?', 'Something shorter?'].map(parentOf)).toEqual([
          'Second answer: Halcyon',
          'Second answer: Halcyon',
        ])
        expect(items[1]?.createdAt.toISOString()).toBe('2023-11-14T22:13:21.123Z')
        const [first] = (await exportAll(tb, scope.userId)).split('\n')
        expect(JSON.parse(first ?? '')).toEqual({
          id: UUID,
          title: 'Naming a boat',
          messages: [
            { role: 'system', content: '' },
            user('Name my boat.'),
            { role: 'assistant', content: 'Second answer: Halcyon' },
            user('Something shorter?'),
            { role: 'assistant', content: 'Ink.' },
          ],
        })
        expect(await importText(tb, scope.userId, sample)).toMatchObject({ known: 3, messages: 0 })
      })

      test('a message that was deleted stays away, and what follows it in a later export follows its parent', async () => {
        const scope = { userId: newUser() }
        await importText(tb, scope.userId, sample)
        const { items } = await tb.messages.list(scope, UUID)
        const last = items.at(-1)
        await tb.messages.delete(scope, UUID, last?.id ?? '')
        expect(await importText(tb, scope.userId, sample)).toMatchObject({ known: 3, messages: 0 })
        const later = structuredClone(boat)
        const node = String(last?.messageId).replace('import:', '')
        later.mapping.n9 = { ...later.mapping.u2, id: 'n9', parent: node, children: [] }
        later.mapping.n9.message = { ...later.mapping.u2.message, id: 'n9', create_time: later.update_time }
        const text = JSON.stringify([later])
        expect(await importText(tb, scope.userId, text)).toMatchObject({
          extended: 1,
          messages: 1,
          refused: 0,
        })
        const after = (await tb.messages.list(scope, UUID)).items
        expect(after.at(-1)).toMatchObject({ messageId: 'import:n9', parentId: last?.parentId })
        expect(after).toHaveLength(items.length)
        expect(await importText(tb, scope.userId, text)).toMatchObject({ known: 1, messages: 0 })
      })

      test('a later export adds branches and fields; an older one changes nothing', async () => {
        const scope = { userId: newUser() }
        await importText(tb, scope.userId, sample)
        const later = structuredClone(boat)
        later.title = 'Boats'
        later.update_time += 1_000
        later.mapping.a1.children.push('u9')
        later.mapping.u9 = { ...later.mapping.u2, id: 'u9', parent: 'a1', children: [] }
        later.mapping.u9.message = { ...later.mapping.u2.message, id: 'u9', create_time: later.update_time }
        const text = JSON.stringify([later])
        expect(await importText(tb, scope.userId, text)).toMatchObject({ extended: 1, messages: 1 })
        const { items } = await tb.messages.list(scope, UUID)
        expect(items.find(({ id }) => id === items.at(-1)?.parentId)?.text).toBe('First answer: Petrel')
        expect((await tb.threads.getThread(scope, UUID)).title).toBe('Boats')
        expect(await importText(tb, scope.userId, text)).toMatchObject({ known: 1 })
        expect(await importText(tb, scope.userId, sample)).toMatchObject({ known: 3 })
        expect((await tb.threads.getThread(scope, UUID)).title).toBe('Boats')
        const changed = structuredClone(later)
        changed.mapping.u1.message.content.parts = ['Name my car.']
        expect((await importText(tb, scope.userId, JSON.stringify([changed]))).refusals).toEqual([
          { n: 1, reason: 'the message of node u1 differs from the one that was imported before' },
        ])
      })

      test('a broken element is reported with its position, and the rest goes on', async () => {
        const text = `[${JSON.stringify(boat)}, {"title": broken}, {"title":"no mapping"}, 5, ${JSON.stringify({ ...boat, conversation_id: 'z' })}`
        const report = await importText(tb, newUser(), text)
        expect(report).toMatchObject({ imported: 1, refused: 4 })
        expect(report.refusals.map(({ n }) => n)).toEqual([2, 3, 4, 5])
        expect(report.refusals.at(-1)?.reason).toBe('the file ends before the array does')
      })

      test('a thread of the same id from elsewhere is refused', async () => {
        const scope = { userId: newUser() }
        await importText(tb, scope.userId, toLines({ id: UUID, messages: [user('0')] }))
        const report = await importText(tb, scope.userId, sample)
        expect(report.refusals).toEqual([
          { n: 1, reason: `thread ${UUID} exists and is another one: it was not imported from ChatGPT` },
        ])
      })
    })
  })
}
