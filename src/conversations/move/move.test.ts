import { readFile, rm, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import fc from 'fast-check'
import { beforeEach, expect, test } from 'vitest'
import { anyJson, anyJsonObject, anyText } from '../../../test/arbitraries.ts'
import { makeCouncilFolder } from '../../../test/council-folders.ts'
import type { TestDatabase } from '../../../test/harness.ts'
import {
  checkLines,
  counts,
  describeMoves,
  readFolder,
  readFolderBytes,
  said,
  user,
} from '../../../test/moves.ts'
import { canonicalJson } from '../../core/json.ts'
import { threadIdOf } from '../ids.ts'

describeMoves('the move', (fixture) => {
  let store: TestDatabase
  let parent: string
  let dir: string
  beforeEach(() => {
    store = fixture.store
    parent = fixture.parent
    dir = fixture.dir
  })
  const { emptyStore, make, put, move, write, messagesOf, stored } = fixture

  test.for([1, 8])(
    'every file is moved, or reported with its reason and place; concurrency %i',
    async (concurrency) => {
      const made = await make({ odd: true, broken: true, conversations: 30, seed: concurrency })
      const before = await readFolderBytes(dir)
      const { report, lines } = await move({ concurrency })
      checkLines(made, lines)
      expect(report.messages).toBe(made.reduce((sum, { messages }) => sum + messages, 0))
      expect(report.done).toBe(report.files)
      expect(await readFolderBytes(dir)).toEqual(before)
      const inStore = await stored()
      const again = await move({ concurrency })
      expect(again.report.messages).toBe(0)
      expect(counts(again.report.conversations)).toEqual([
        0,
        0,
        report.conversations.moved,
        1,
        report.conversations.failed,
      ])
      expect(await stored()).toEqual(inStore)
    },
  )

  test('a folder that went there and back is equal JSON in the same places, times too', async () => {
    for (let seed = 1; seed <= 4; seed++) {
      await emptyStore()
      const folder = join(dir, `${seed}`)
      await makeCouncilFolder(folder, { seed, odd: true, conversations: 25 })
      await rm(join(folder, 'usage'), { recursive: true })
      expect((await move({}, folder)).report.conversations).toMatchObject({ moved: 25, failed: 0 })
      const back = join(dir, `back ${seed}`)
      expect((await write(back)).report.conversations).toEqual({ written: 25, equal: 0, failed: 0 })
      expect(await readFolder(back)).toEqual(await readFolder(folder))
      // and what came back is what was there: nothing is new
      expect(counts((await move({}, back)).report.conversations)).toEqual([0, 0, 25, 0, 0])
      expect((await write(folder)).report.conversations).toEqual({ written: 0, equal: 25, failed: 0 })
      await emptyStore()
      await move({}, back)
      expect(await readFolder(back)).toEqual(await readFolder(folder))
    }
  })

  test('any JSON in any field of a document or a message goes there and back', async () => {
    const message = fc.tuple(
      anyJsonObject,
      fc.dictionary(
        fc.constantFrom('role', 'content', 'stage1', 'stage2', 'stage3', 'metadata', 'created_at'),
        fc.oneof(anyJson, fc.constantFrom('user', 'assistant')),
      ),
    )
    const document = fc.tuple(
      anyJsonObject,
      fc.dictionary(fc.constantFrom('id', 'title', 'created_at', 'user_id'), fc.oneof(anyJson, anyText)),
      fc.array(
        message.map(([a, b]) => ({ ...a, ...b })),
        { maxLength: 5 },
      ),
    )
    const documents = fc.sample(document, 150).map(([a, b, messages]) => ({ ...a, ...b, messages }))
    for (const [i, value] of documents.entries())
      await put(`conversations/any/${i}.json`, JSON.stringify(value))
    const { report, lines } = await move()
    expect(lines.filter(({ status }) => status !== 'moved')).toEqual([])
    expect(report.conversations.moved).toBe(150)
    const back = join(dir, 'back')
    await write(back)
    const [there, written] = [
      await readFolder(join(dir, 'conversations')),
      await readFolder(join(back, 'conversations')),
    ]
    for (const [path, json] of Object.entries(there)) expect([path, written[path]]).toEqual([path, json])
    expect(counts((await move({}, back)).report.conversations)).toEqual([0, 0, 150, 0, 0])
  })

  test('usage of both spellings goes there and back; counters that are there stay', async () => {
    await make({ conversations: 6 })
    await put('usage/bare/usage.json', { daily_count: 3 })
    const { report } = await move()
    expect(counts(report.usage)).toEqual([report.usage.moved, 0, 0, 0, 0])
    expect(report.usage.moved).toBeGreaterThan(3)
    expect((await write(dir)).report.usage).toEqual({ written: 0, equal: report.usage.moved, failed: 0 })
    await put('usage/bare/usage.json', { daily_count: 9 })
    const again = await move()
    expect(counts(again.report.usage)).toEqual([0, 0, report.usage.moved, 0, 0])
    const back = await write(dir)
    expect(back.report.usage).toMatchObject({ failed: 1 })
    expect(back.lines.find(({ status }) => status === 'failed')?.reason).toContain('--force')
    await write(dir, { force: true })
    expect(JSON.parse(await readFile(join(dir, 'usage/bare/usage.json'), 'utf8'))).toMatchObject({
      daily_count: 3,
      tier: 'free',
    })
  })

  test('usage that went there and back is equal JSON, in its own spelling, until it changes', async () => {
    await make({ conversations: 6 })
    await put('usage/bare/usage.json', {
      daily_count: 3,
      own: { field: '\0' },
      last_daily_reset: '2024-01',
    })
    await move()
    const back = join(parent, `back of ${basename(dir)}`)
    await write(back)
    expect(await readFolder(join(back, 'usage'))).toEqual(await readFolder(join(dir, 'usage')))
    await store.tb.usage.consume({ userId: 'bare' })
    await write(back, { force: true })
    const day = new Date().toISOString()
    expect(JSON.parse(await readFile(join(back, 'usage/bare/usage.json'), 'utf8'))).toMatchObject({
      daily_count: 1,
      own: { field: '\0' },
      last_daily_reset: day.slice(0, 7),
    })
  })

  test('a conversation that has grown gets what is missing, with newer fields', async () => {
    const [first, second] = [new Date('2024-01-01T01:00:00Z'), new Date('2024-01-01T05:00:00Z')]
    const document = {
      id: 'g',
      created_at: '2024-01-01T00:00:00',
      title: 'New Conversation',
      messages: said(2),
    }
    await put('conversations/g.json', document, first)
    await move()
    await put('conversations/g.json', { ...document, title: 'Named', tag: 1, messages: said(4) }, second)
    const dry = await move({ dryRun: true })
    const { report, lines } = await move()
    expect(lines).toEqual([
      {
        file: 'conversations/g.json',
        kind: 'conversation',
        status: 'extended',
        userId: 'local',
        id: 'g',
        messages: 2,
      },
    ])
    expect(dry.lines).toEqual(lines)
    expect(report.messages).toBe(2)
    const messages = await messagesOf('local', 'g')
    expect(
      messages.map(({ content, messageId, seq, createdAt }) => [
        content,
        messageId,
        seq,
        createdAt.toISOString(),
      ]),
    ).toEqual([
      ['m0', 'council:0', 1, '2024-01-01T00:30:00.000Z'],
      ['m1', 'council:1', 2, '2024-01-01T01:00:00.000Z'],
      ['m2', 'council:2', 3, '2024-01-01T03:00:00.000Z'],
      ['m3', 'council:3', 4, '2024-01-01T05:00:00.000Z'],
    ])
    expect(messages.slice(1).map(({ parentId }) => parentId)).toEqual(
      messages.slice(0, 3).map(({ id }) => id),
    )
    const thread = await store.tb.threads.getThread({ userId: 'local' }, threadIdOf('g'))
    expect([thread.title, thread.updatedAt, thread.createdAt.toISOString(), thread.kind]).toEqual([
      'Named',
      second,
      '2024-01-01T00:00:00.000Z',
      'council',
    ])
    const back = join(dir, 'back')
    await write(back)
    expect(await readFolder(back)).toEqual({
      'conversations/g.json': canonicalJson({ ...document, title: 'Named', tag: 1, messages: said(4) }),
    })
    expect((await stat(join(back, 'conversations/g.json'))).mtime).toEqual(second)
  })

  test('one that went on in the database is known; one that went on in both is a conflict, and stays', async () => {
    const document = { id: 'w', created_at: '2024-01-01T00:00:00', title: 't', messages: said(2) }
    await put('conversations/w.json', document)
    await move()
    await store.tb.messages.append({ userId: 'local' }, threadIdOf('w'), [user('m2') as never])
    expect((await move()).lines).toMatchObject([{ status: 'known', messages: 0 }])
    const before = await stored()
    await put('conversations/w.json', { ...document, messages: [...said(2), user('else'), user('more')] })
    const { lines } = await move()
    expect(lines).toMatchObject([
      { status: 'failed', reason: 'message 3 differs from the one that is stored: nothing was changed' },
    ])
    expect((await move({ dryRun: true })).lines).toEqual(lines)
    // the digest of a message does not see fields beside its content
    await put('conversations/w.json', { ...document, messages: [user('m0', { extra: 1 }), user('m1')] })
    expect((await move()).lines).toMatchObject([{ status: 'failed' }])
    expect(await stored()).toEqual(before)
    // what both said in the same words
    await put('conversations/w.json', { ...document, messages: said(4) })
    expect((await move()).lines).toMatchObject([{ status: 'extended', messages: 1 }])
  })

  test('a title that was changed in the database stays, also when the file has another one by now', async () => {
    const document = { id: 't', created_at: '2024-01-01T00:00:00', title: 'first', messages: said(1) }
    await put('conversations/t.json', document)
    await move()
    await store.tb.threads.update({ userId: 'local' }, threadIdOf('t'), { title: 'of the database' })
    expect((await move()).lines).toMatchObject([{ status: 'known', reason: undefined }])
    await put('conversations/t.json', { ...document, title: 'of the file', messages: said(2) })
    expect((await move()).lines).toMatchObject([
      { status: 'extended', messages: 1, reason: expect.stringContaining('those of the database stay') },
    ])
    expect((await store.tb.threads.getThread({ userId: 'local' }, threadIdOf('t'))).title).toBe(
      'of the database',
    )
  })

  test('a thread of another kind with the id is left alone', async () => {
    const id = crypto.randomUUID()
    await store.tb.threads.create({ userId: 'local' }, { id, title: 'a chat' })
    await put(`conversations/${id}.json`, { id, messages: said(1) })
    expect((await move()).lines).toMatchObject([
      { status: 'failed', reason: expect.stringContaining('kind chat') },
    ])
  })
})
