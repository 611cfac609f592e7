import { cp, mkdir, readdir, readFile, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import fc from 'fast-check'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { anyJson, anyJsonObject, anyText } from '../../../test/arbitraries.ts'
import {
  type CouncilFolderOptions,
  type MadeFile,
  makeCouncilFolder,
  pathOf,
} from '../../../test/council-folders.ts'
import { engines, makeTempDir, type TestDatabase } from '../../../test/harness.ts'
import { canonicalJson, parseJson } from '../../core/json.ts'
import { threadIdOf } from '../ids.ts'
import type { MoveLine, MoveOptions, MoveReport, WriteLine, WriteOptions } from './schema.ts'

const counts = ({ moved, extended, known, skipped, failed }: MoveReport['usage']) => [
  moved,
  extended,
  known,
  skipped,
  failed,
]
const user = (content: unknown, more: object = {}) => ({ role: 'user', content, ...more })
const said = (n: number) => Array.from({ length: n }, (_, i) => user(`m${i}`))

/** Every file of a folder by path: its JSON in one form, or its text. */
async function readFolder(dir: string): Promise<Record<string, string>> {
  const files = await readdir(dir, { recursive: true, withFileTypes: true })
  const read = files
    .filter((file) => file.isFile())
    .map(async ({ parentPath, name }) => {
      const path = join(parentPath, name)
      return [path.slice(dir.length + 1), canonicalJson(parseJson(await readFile(path, 'utf8')))] as const
    })
  return Object.fromEntries((await Promise.all(read)).sort())
}

for (const engine of engines) {
  for (const rls of ['off', 'enforce'] as const) {
    describe.skipIf(!engine.available)(`the move on ${engine.name}, row level security ${rls}`, () => {
      let store: TestDatabase
      let parent: string
      let dir: string
      let folders = 0
      beforeAll(async () => {
        store = await engine.open({ rls })
        parent = await makeTempDir()
      })
      afterAll(async () => {
        await store?.close()
        await rm(parent, { recursive: true, force: true })
      })
      beforeEach(async () => {
        await emptyStore()
        dir = join(parent, `folder ${++folders}`)
        await mkdir(dir)
      })

      const emptyStore = async () => {
        await sql`delete from ${sql.table(`${store.database.schema}.threads`)}`.execute(store.database.db)
        await sql`delete from ${sql.table(`${store.database.schema}.usage`)}`.execute(store.database.db)
      }
      const make = (options?: CouncilFolderOptions) => makeCouncilFolder(dir, options)
      async function put(path: string, value: unknown, time?: Date): Promise<void> {
        await mkdir(dirname(join(dir, path)), { recursive: true })
        await writeFile(join(dir, path), typeof value === 'string' ? value : JSON.stringify(value))
        if (time !== undefined) await utimes(join(dir, path), time, time)
      }
      async function move(
        options: MoveOptions = {},
        from = dir,
      ): Promise<{ report: MoveReport; lines: MoveLine[] }> {
        const lines: MoveLine[] = []
        const report = await store.tb.conversationMove.migrate(from, {
          ...options,
          onFile: (line) => lines.push(line),
        })
        return { report, lines: lines.sort((a, b) => (a.file < b.file ? -1 : 1)) }
      }
      async function write(to: string, options: WriteOptions = {}) {
        const lines: WriteLine[] = []
        const report = await store.tb.conversationMove.export(to, {
          ...options,
          onFile: (line) => lines.push(line),
        })
        return { report, lines }
      }
      const lineOf = (lines: MoveLine[], file: string) => lines.find((line) => line.file === file)
      const messagesOf = async (userId: string, id: string) =>
        (await store.tb.messages.list({ userId }, threadIdOf(id), { limit: 200 })).items
      async function stored(): Promise<unknown> {
        const { rows } = await sql`
          select t.user_id, t.id, t.title, t.meta, t.last_seq, t.created_at, t.updated_at,
                 (select json_agg(json_build_array(m.seq, m.message_id, m.parent_seq, m.role, m.content, m.meta, m.created_at) order by m.seq)
                    from ${sql.table(`${store.database.schema}.messages`)} m where m.user_id = t.user_id and m.thread_id = t.id) as messages
            from ${sql.table(`${store.database.schema}.threads`)} t order by 1, 2`.execute(store.database.db)
        const usage =
          await sql`select * from ${sql.table(`${store.database.schema}.usage`)} order by user_id`.execute(
            store.database.db,
          )
        return [rows, usage.rows]
      }

      function check(made: MadeFile[], lines: MoveLine[]): void {
        expect(lines.map(({ file, status }) => [file, status])).toEqual(
          made.map(({ path, status }) => [path, status]).sort(([a = ''], [b = '']) => (a < b ? -1 : 1)),
        )
        for (const { path, messages, reason, at } of made) {
          const line = lineOf(lines, path)
          expect(line?.messages ?? 0).toBe(messages)
          if (reason !== undefined) expect(line?.reason).toContain(reason)
          if (at !== undefined) expect([path, `${line?.at?.line}:${line?.at?.column}`]).toEqual([path, at])
        }
      }

      test.for([1, 8])(
        'every file is moved, or reported with its reason and place; concurrency %i',
        async (concurrency) => {
          const made = await make({ odd: true, broken: true, conversations: 30, seed: concurrency })
          const before = await readFolderText(dir)
          const { report, lines } = await move({ concurrency })
          check(made, lines)
          expect(report.messages).toBe(made.reduce((sum, { messages }) => sum + messages, 0))
          expect(report.done).toBe(report.files)
          expect(await readFolderText(dir)).toEqual(before)
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
        const back = join(parent, `back ${folders}`)
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

      test('a dry run says what a run does, and changes nothing', async () => {
        await make({ odd: true, broken: true, conversations: 12 })
        const before = await stored()
        const dry = await move({ dryRun: true })
        expect(await stored()).toEqual(before)
        const run = await move()
        expect(dry.lines).toEqual(run.lines)
        expect({ ...dry.report, dryRun: false }).toEqual(run.report)
      })

      test('one user: directories of others are left out, files that name nobody are taken', async () => {
        await make({ conversations: 18, messages: 2 })
        const { report, lines } = await move({ userId: 'clerk-1' })
        const owners = new Set(lines.filter(({ status }) => status === 'moved').map(({ userId }) => userId))
        expect(owners).toEqual(new Set(['clerk-1']))
        // 3 flat files name nobody, 3 name another; 2 are in the user's directory
        expect(report.conversations).toMatchObject({ moved: 5, skipped: 3, failed: 0 })
        expect(report.usage.moved).toBe(1)
        expect(lineOf(lines, 'conversations/clerk-0/')).toMatchObject({
          kind: 'other',
          reason: 'of another user',
        })
        const back = join(dir, 'back')
        await write(back, { userId: 'clerk-1' })
        const there = await readFolder(dir)
        for (const [path, json] of Object.entries(await readFolder(back)).filter(
          ([path]) => !path.startsWith('usage'),
        ))
          expect([path, json]).toEqual([path, there[path]])
        // for all users the owner must be found again: such a file goes to the user's directory
        const all = join(dir, 'all')
        expect(
          (await write(all)).lines.filter(
            ({ file, kind }) => kind === 'conversation' && !file.startsWith('conversations/clerk-1/'),
          ),
        ).toEqual([])
      })

      test('the name of a file is the id; what the document says comes back', async () => {
        await put('conversations/by-name.json', { id: 'other', title: 't', messages: [] })
        await put('conversations/none.json', { messages: said(1) })
        await put('conversations/odd.json', { id: { a: 1 }, messages: said(1) })
        const { lines } = await move()
        expect(lines.map(({ id, status }) => [id, status])).toEqual([
          ['by-name', 'moved'],
          ['none', 'moved'],
          ['odd', 'moved'],
        ])
        const back = join(dir, 'back')
        await write(back)
        await rm(join(dir, 'back/usage'), { recursive: true, force: true })
        const there = await readFolder(join(dir, 'conversations'))
        expect(await readFolder(join(back, 'conversations'))).toEqual(there)
      })

      test('the directory above, and conversations/ itself, are the same folder', async () => {
        await mkdir(join(dir, 'project/data'), { recursive: true })
        await makeCouncilFolder(join(dir, 'project/data'), { conversations: 6, layouts: ['flat', 'nested'] })
        await writeFile(join(dir, 'project/package.json'), '{}')
        expect((await move({}, join(dir, 'project'))).report.conversations).toMatchObject({
          moved: 6,
          failed: 0,
        })
        expect((await move({}, join(dir, 'project/data/conversations'))).report.conversations).toMatchObject({
          known: 6,
        })
        await cp(join(dir, 'project/data/conversations'), join(dir, 'copy'), { recursive: true })
        expect((await move({}, join(dir, 'copy'))).report.conversations).toMatchObject({ known: 6 })
        await expect(move({}, join(dir, 'nowhere'))).rejects.toMatchObject({ code: 'not_found' })
        await expect(move({}, join(dir, 'project/package.json'))).rejects.toMatchObject({
          code: 'invalid_input',
        })
      })

      test('links within the folder are followed, links out of it are not', async () => {
        const outside = join(parent, `outside ${folders}`)
        await mkdir(outside)
        await writeFile(join(outside, 'x.json'), JSON.stringify({ messages: said(1) }))
        await put('conversations/u/a.json', { messages: said(1) })
        await symlink(join(outside, 'x.json'), join(dir, 'conversations/u/x.json'))
        await symlink(outside, join(dir, 'thief'))
        await symlink('a.json', join(dir, 'conversations/u/b.json'))
        await symlink('nothing', join(dir, 'conversations/u/c.json'))
        const { lines } = await move()
        expect(lines.map(({ file, status }) => [file, status])).toEqual([
          ['conversations/u/a.json', 'moved'],
          ['conversations/u/b.json', 'moved'],
          ['conversations/u/c.json', 'failed'],
          ['conversations/u/x.json', 'skipped'],
          ['thief', 'skipped'],
        ])
      })

      test('hidden files and what writers leave are not listed', async () => {
        for (const name of ['.a.json', '.b.json.123.tmp', 'c.json.tmp', 'd.json~', 'e.lock'])
          await put(`conversations/u/${name}`, '{')
        await put('.git/config', '')
        expect((await move()).lines).toEqual([])
      })

      test('stopped in the middle and run again: all of it, once', async () => {
        const made = await make({ conversations: 60, messages: 6, layouts: ['nested'] })
        const controller = new AbortController()
        const first = await store.tb.conversationMove.migrate(dir, {
          concurrency: 1,
          signal: controller.signal,
          onFile: () => controller.abort(),
        })
        expect(first.done).toBeGreaterThan(0)
        const rest = await move()
        expect(rest.report.conversations.failed).toBe(0)
        expect(first.messages + rest.report.messages).toBe(
          made.reduce((sum, { messages }) => sum + messages, 0),
        )
        const back = join(dir, 'back')
        await write(back)
        expect(Object.keys(await readFolder(join(back, 'conversations')))).toHaveLength(60)
      })

      test('a message of 5 MB, and a conversation of more messages than a statement takes', async () => {
        await make({ conversations: 2, bigMessageBytes: 5_000_000 })
        await put('conversations/local/long.json', { messages: said(4_500) })
        const { report } = await move()
        expect(report.conversations).toMatchObject({ moved: 3, failed: 0 })
        const back = join(dir, 'back')
        expect((await write(back)).report.conversations).toMatchObject({ written: 3, failed: 0 })
        await rm(join(dir, 'usage'), { recursive: true })
        await rm(join(back, 'usage'), { recursive: true })
        const there = await readFolder(back)
        await rm(back, { recursive: true })
        expect(there).toEqual(await readFolder(dir))
      })

      test('a number that the database refuses in a field is told of its file alone', async () => {
        await put('conversations/a.json', { messages: said(1) })
        await put('conversations/huge.json', `{"n": ${'9'.repeat(140_000)}, "messages": []}`)
        await put('conversations/z.json', { messages: said(1) })
        const { lines } = await move()
        expect(lines.map(({ id, status }) => [id, status])).toEqual([
          ['a', 'moved'],
          ['huge', 'failed'],
          ['z', 'moved'],
        ])
      })

      test('files with other content are left, unless they are to be replaced', async () => {
        await put('conversations/a.json', { id: 'a', messages: said(1) })
        await move()
        await put('conversations/a.json', '{"broken')
        const { report, lines } = await write(dir)
        expect([report.conversations, lines[0]?.reason]).toEqual([
          { written: 0, equal: 0, failed: 1 },
          'there is a file with other content, which --force replaces',
        ])
        expect(await readFile(join(dir, 'conversations/a.json'), 'utf8')).toBe('{"broken')
        await write(dir, { force: true })
        expect(await readFolder(dir)).toEqual({
          'conversations/a.json': canonicalJson({ id: 'a', messages: said(1) }),
        })
      })

      test('conversations that were made here go where their user has others', async () => {
        const council = { kind: 'council', title: 'made here' } as const
        const ids: Record<string, string> = {}
        for (const userId of ['local', 'nested', 'flat', 'auth0|a/b', 'fire'])
          ids[userId] = (await store.tb.threads.create({ userId }, council)).id
        await put('fire/x.json', { messages: [] })
        await store.tb.threads.create({ userId: 'local' }, { kind: 'chat' })
        const { lines } = await write(dir)
        expect(lines.map(({ file, status }) => [file, status]).sort()).toEqual(
          [
            [pathOf('flat', 'local', `${ids.local}`), 'written'],
            [pathOf('nested', 'nested', `${ids.nested}`), 'written'],
            [pathOf('nested', 'flat', `${ids.flat}`), 'written'],
            [pathOf('user', 'fire', `${ids.fire}`), 'written'],
            [`conversations/auth0|a/b/${ids['auth0|a/b']}.json`, 'failed'],
          ].sort(),
        )
      })

      test('an id in the meta of a thread, which users may write, is never a path', async () => {
        const council = { id: '../../../escaped', absent: 5 }
        const meta = { council, council_file: { place: '../..', id: null } }
        const { id } = await store.tb.threads.create({ userId: 'u' }, { kind: 'council', meta })
        await store.tb.threads.create({ userId: '..' }, { kind: 'council' })
        const { lines } = await write(join(dir, 'data'))
        expect(lines.map(({ file, status }) => [status, file]).sort()).toEqual([
          ['failed', expect.stringMatching(/^conversations\/\.\.\//)],
          ['written', `conversations/u/${id}.json`],
        ])
        expect(await readdir(dir)).toEqual(['data'])
      })

      test('a fork does not take the file of its origin', async () => {
        const scope = { userId: 'u' }
        const { conversations, threads } = store.tb
        await conversations.createConversation(scope, 'trip')
        const [thread] = (await threads.list(scope, {})).items
        const fork = await threads.fork(scope, thread?.id ?? '')
        const { lines } = await write(dir)
        expect(lines.map(({ file, status }) => [status, file]).sort()).toEqual(
          [
            ['written', `conversations/u/${fork.id}.json`],
            ['written', 'conversations/u/trip.json'],
          ].sort(),
        )
      })
    })
  }
}

/** Every file by path, byte for byte, with its time. */
async function readFolderText(dir: string): Promise<Record<string, string>> {
  const files = await readdir(dir, { recursive: true, withFileTypes: true })
  const read = files
    .filter((file) => file.isFile())
    .map(async ({ parentPath, name }) => {
      const path = join(parentPath, name)
      return [path, `${(await stat(path)).mtimeMs} ${await readFile(path, 'base64')}`] as const
    })
  return Object.fromEntries(await Promise.all(read))
}
