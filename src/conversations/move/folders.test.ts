import { cp, mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, expect, test } from 'vitest'
import { makeCouncilFolder, pathOf } from '../../../test/council-folders.ts'
import type { TestDatabase } from '../../../test/harness.ts'
import { describeMoves, readFolder, said } from '../../../test/moves.ts'
import { canonicalJson } from '../../core/json.ts'
import type { MoveLine } from './schema.ts'

describeMoves('folders that are moved, and written', (fixture) => {
  let store: TestDatabase
  let parent: string
  let dir: string
  beforeEach(() => {
    store = fixture.store
    parent = fixture.parent
    dir = fixture.dir
  })
  const { make, put, move, write, stored } = fixture
  const lineOf = (lines: MoveLine[], file: string) => lines.find((line) => line.file === file)

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
    const outside = join(parent, `outside ${dir.split(' ').at(-1)}`)
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
    expect(first.messages + rest.report.messages).toBe(made.reduce((sum, { messages }) => sum + messages, 0))
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
