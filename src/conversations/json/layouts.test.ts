import { chmod, mkdir, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { answerOf, conversationOf } from '../../../test/conversation-stores.ts'
import { type LogRecord, makeTempDir, recordingLog } from '../../../test/harness.ts'
import type { ConversationStore } from '../store.ts'
import { openJsonConversations } from './store.ts'

const local = { userId: 'local' }
const u1 = { userId: 'u1' }

let dir: string
let store: ConversationStore
let logged: LogRecord[]
beforeEach(async () => {
  dir = await makeTempDir()
  await reopen()
})
afterEach(() => rm(dir, { recursive: true, force: true }))
async function reopen(localUser?: string) {
  const recording = recordingLog()
  logged = recording.logged
  store = await openJsonConversations({ dir, log: recording.log, localUser })
}
async function put(path: string, document: unknown) {
  await mkdir(dirname(join(dir, path)), { recursive: true })
  await writeFile(
    join(dir, path),
    typeof document === 'string' ? document : JSON.stringify(document, null, 2),
  )
}
const at = async (path: string) => JSON.parse(await readFile(join(dir, path), 'utf8'))
const listed = async (scope: { userId: string }) =>
  (await store.listConversations(scope)).map(({ id }) => id).sort()
const said = (content: string) => [{ role: 'user', content }]
/** All files below the directory. */
const everything = async () =>
  (await readdir(dir, { recursive: true, withFileTypes: true }))
    .filter((entry) => !entry.isDirectory())
    .map(({ parentPath, name }) => join(parentPath, name).slice(dir.length + 1))
    .sort()

describe('layouts', () => {
  test('all of them are read, changed in their places and deleted', async () => {
    const places = ['conversations/u1/a.json', 'u1/b.json', 'conversations/c.json']
    await put('conversations/u1/a.json', conversationOf('a'))
    await put('u1/b.json', conversationOf('b', said('old')))
    await put('conversations/c.json', { ...conversationOf('c'), user_id: 'u1' })
    await put('conversations/d.json', conversationOf('d'))
    await put('u2/e.json', conversationOf('e'))
    expect(await listed(u1)).toEqual(['a', 'b', 'c'])
    expect(await listed(local)).toEqual(['d'])
    expect(await listed({ userId: 'u2' })).toEqual(['e'])
    for (const id of ['a', 'b', 'c']) {
      await store.addUserMessage(u1, id, 'new')
      await store.addAssistantMessage(u1, id, answerOf('new'))
      await store.updateConversationTitle(u1, id, `title of ${id}`)
      expect(await store.findConversation(local, id)).toBeUndefined()
    }
    for (const place of places) {
      const { id, title, messages } = await at(place)
      expect([title, messages.length]).toEqual([`title of ${id}`, id === 'b' ? 3 : 2])
    }
    expect(await everything()).toEqual([...places, 'conversations/d.json', 'u2/e.json'].sort())
    for (const id of ['a', 'b', 'c']) expect(await store.deleteConversation(u1, id)).toBe(true)
    expect(await everything()).toEqual(['conversations/d.json', 'u2/e.json'])
  })

  test('new ones go to those that there are', async () => {
    const cases: [before: string | undefined, user: string, after: string][] = [
      [undefined, 'local', 'conversations/new.json'],
      [undefined, 'u1', 'conversations/u1/new.json'],
      ['u1/old.json', 'u1', 'u1/new.json'],
      ['conversations/local/old.json', 'local', 'conversations/local/new.json'],
      ['conversations/old.json', 'u1', 'conversations/new.json'],
      ['usage/u1/usage.json', 'u1', 'conversations/u1/new.json'],
    ]
    for (const [before, userId, after] of cases) {
      await rm(dir, { recursive: true })
      await reopen()
      const owner = before === 'conversations/old.json' ? { user_id: userId } : {}
      if (before !== undefined) await put(before, { ...conversationOf('old'), ...owner })
      const made = await store.createConversation({ userId }, 'new')
      expect(made, after).toEqual({ ...made, ...owner })
      expect(await at(after)).toEqual(made)
      expect(await store.getConversation({ userId }, 'new')).toEqual(made)
    }
  })

  test("the files that name nobody are the local user's, whatever his name", async () => {
    await reopen('me')
    await put('conversations/a.json', conversationOf('a'))
    expect(await listed({ userId: 'me' })).toEqual(['a'])
    expect(await listed(local)).toEqual([])
  })

  test('no save gives a conversation to another user, or takes one', async () => {
    await put('conversations/theirs.json', { ...conversationOf('theirs', said('x')), user_id: 'u1' })
    await put('conversations/mine.json', conversationOf('mine', said('y')))
    await store.saveConversation(local, conversationOf('theirs', said('not yours')))
    expect(await at('conversations/theirs.json')).toMatchObject({ user_id: 'u1', messages: said('x') })
    expect((await store.getConversation(local, 'theirs')).messages).toEqual(said('not yours'))
    const given = conversationOf('mine', said('z'), { user_id: 'u1' })
    await store.saveConversation(local, given)
    expect(await store.findConversation(u1, 'mine')).toBeUndefined()
    expect(await store.getConversation(local, 'mine')).toEqual(given)
    expect(await listed(local)).toEqual(['mine', 'theirs'])
    expect(await store.deleteConversation(local, 'mine')).toBe(true)
    expect(await listed(local)).toEqual(['theirs'])
    const bare = conversationOf('theirs', said('without a name'))
    await store.saveConversation(u1, bare)
    expect(await store.getConversation(u1, 'theirs')).toEqual(bare)
  })

  test('of two with one id the same is read, changed and listed; both are deleted', async () => {
    for (const [place, title] of [
      ['conversations/u1/a.json', 'nested'],
      ['u1/a.json', 'top'],
    ])
      await put(place as string, conversationOf('a', [], { title }))
    expect(await store.listConversations(u1)).toMatchObject([{ id: 'a', title: 'nested' }])
    await store.addUserMessage(u1, 'a', 'x')
    expect((await at('u1/a.json')).messages).toEqual([])
    await store.deleteConversation(u1, 'a')
    expect(await everything()).toEqual([])
  })

  test('the name of the file is the id', async () => {
    await put('conversations/name.json', { title: 'T', id: 'other', messages: [] })
    expect(await store.listConversations(local)).toMatchObject([{ id: 'name' }])
    expect(await store.getConversation(local, 'name')).toEqual({ title: 'T', id: 'name', messages: [] })
    expect(await store.findConversation(local, 'other')).toBeUndefined()
  })

  test('keys keep their order, and what is not known stays', async () => {
    await put(
      'conversations/a.json',
      '{"z":1,"messages":[],"title":"T","n":12345678901234567890,"id":"a","a":{"y":1,"x":2}}',
    )
    await store.addUserMessage(local, 'a', 'é')
    expect(await readFile(join(dir, 'conversations/a.json'), 'utf8')).toBe(`{
  "z": 1,
  "messages": [
    {
      "role": "user",
      "content": "\\u00e9"
    }
  ],
  "title": "T",
  "n": 12345678901234567890,
  "id": "a",
  "a": {
    "y": 1,
    "x": 2
  }
}`)
  })

  test('who may read the directory may read its files', async () => {
    await mkdir(join(dir, 'conversations'))
    await chmod(join(dir, 'conversations'), 0o755)
    await store.createConversation(local, 'a')
    await store.createConversation(u1, 'b')
    const mode = async (path: string) => (await stat(join(dir, path))).mode & 0o777
    expect(await mode('conversations/a.json')).toBe(0o644)
    expect(await mode('conversations/u1')).toBe(0o755)
    await chmod(join(dir, 'conversations/a.json'), 0o600)
    await store.addUserMessage(local, 'a', 'x')
    expect(await mode('conversations/a.json')).toBe(0o600)
  })
})

describe('a broken file', () => {
  const cases: [content: string | Buffer, details: object][] = [
    ['', { line: 1, column: 1 }],
    ['{\n  "id": "a",\n  "messages": [,]\n}', { line: 3, column: 16 }],
    ['{"id": "a", "messages": [', { line: 1 }],
    ['{"average": NaN}', { line: 1, column: 13 }],
    ['[]', {}],
    ['"text"', {}],
    ['{"messages": 7}', {}],
    [Buffer.from([0x7b, 0xff, 0x7d]), {}],
  ]
  test.each(cases)('%j is left out of the list, told, and never written over', async (content, details) => {
    await put('conversations/good.json', conversationOf('good'))
    await put('conversations/a.json', '')
    const path = join(dir, 'conversations/a.json')
    await writeFile(path, content)
    for (let i = 0; i < 3; i++) expect(await listed(local)).toEqual(['good'])
    const problem = { code: 'invalid_input', details: { file: 'conversations/a.json', ...details } }
    await expect(store.getConversation(local, 'a')).rejects.toMatchObject(problem)
    await expect(store.findConversation(local, 'a')).rejects.toMatchObject(problem)
    await expect(store.addUserMessage(local, 'a', 'x')).rejects.toMatchObject(problem)
    await expect(store.updateConversationTitle(local, 'a', 'x')).rejects.toMatchObject(problem)
    await expect(store.saveConversation(local, conversationOf('a'))).rejects.toMatchObject(problem)
    await expect(store.createConversation(local, 'a')).rejects.toMatchObject({ code: 'conflict' })
    expect(await store.findConversation(u1, 'a')).toBeUndefined()
    expect((await readFile(path)).equals(Buffer.from(content))).toBe(true)
    expect(await everything()).toEqual(['conversations/a.json', 'conversations/good.json'])
    expect(await store.search(local, 'Trip')).toMatchObject([{ id: 'good' }])
    await put('conversations/a.json', conversationOf('a'))
    expect(await listed(local)).toEqual(['a', 'good'])
    expect(await store.deleteConversation(local, 'a')).toBe(true)
  })

  test('is warned of once for each content', async () => {
    await put('conversations/a.json', '{')
    for (let i = 0; i < 3; i++) await store.listConversations(local)
    await put('conversations/a.json', '{"')
    for (let i = 0; i < 3; i++) await store.listConversations(local)
    expect(logged).toMatchObject([
      { level: 'warn', facts: { file: 'conversations/a.json', line: 1, column: 2 } },
      { level: 'warn', facts: { file: 'conversations/a.json', line: 1, column: 3 } },
    ])
  })

  test('can be deleted by whom it is of', async () => {
    await put('conversations/a.json', '{')
    expect(await store.deleteConversation(u1, 'a')).toBe(false)
    expect(await store.deleteConversation(local, 'a')).toBe(true)
    expect(await everything()).toEqual([])
  })
})

describe('paths', () => {
  test('user ids that are no directory of their own are refused', async () => {
    await put('conversations/a.json', conversationOf('a'))
    const ids = [
      '..',
      '.',
      '../x',
      'a/b',
      'a\\b',
      '.hidden',
      'conversations',
      'usage',
      'a.json',
      'x'.repeat(201),
      'a\nb',
      '',
    ]
    for (const userId of ids) {
      const refused = { code: 'invalid_input' }
      await expect(store.listConversations({ userId }), userId).rejects.toMatchObject(refused)
      await expect(store.createConversation({ userId }), userId).rejects.toMatchObject(refused)
      await expect(store.findConversation({ userId }, 'a'), userId).rejects.toMatchObject(refused)
      await expect(store.deleteConversation({ userId }, 'a'), userId).rejects.toMatchObject(refused)
      await expect(store.search({ userId }, 'a'), userId).rejects.toMatchObject(refused)
    }
    expect(await everything()).toEqual(['conversations/a.json'])
  })

  test('links are not followed, files and directories', async () => {
    const outside = await makeTempDir()
    try {
      await writeFile(join(outside, 'secret.json'), JSON.stringify(conversationOf('secret')))
      await put('conversations/u2/theirs.json', conversationOf('theirs'))
      await symlink(outside, join(dir, 'u1'))
      await symlink(outside, join(dir, 'conversations', 'u1'))
      await symlink(join(outside, 'secret.json'), join(dir, 'conversations', 'secret.json'))
      for (const scope of [u1, local]) {
        expect(await store.listConversations(scope)).toEqual([])
        expect(await store.findConversation(scope, 'secret')).toBeUndefined()
        expect(await store.deleteConversation(scope, 'secret')).toBe(false)
        await expect(store.addUserMessage(scope, 'secret', 'x')).rejects.toMatchObject({ code: 'not_found' })
      }
      await expect(store.createConversation(u1, 'new')).rejects.toMatchObject({ code: 'unavailable' })
      await expect(store.saveConversation(u1, conversationOf('secret'))).rejects.toMatchObject({
        code: 'unavailable',
      })
      expect(await readdir(outside)).toEqual(['secret.json'])
      expect(JSON.parse(await readFile(join(outside, 'secret.json'), 'utf8'))).toEqual(
        conversationOf('secret'),
      )
    } finally {
      await rm(outside, { recursive: true })
    }
  })

  test('the directory itself may be a link', async () => {
    const link = `${dir}-link`
    await symlink(dir, link)
    const linked = await openJsonConversations({ dir: link, log: recordingLog().log })
    await linked.createConversation(u1, 'a')
    expect(await listed(u1)).toEqual(['a'])
    await rm(link)
  })

  test('what is neither a conversation nor a file is left alone', async () => {
    await mkdir(join(dir, 'conversations/dir.json'), { recursive: true })
    await put('conversations/.hidden.json', conversationOf('hidden'))
    await put('conversations/notes.txt', 'x')
    await put('conversations/a.json', conversationOf('a'))
    expect(await listed(local)).toEqual(['a'])
    expect(await store.findConversation(local, 'dir')).toBeUndefined()
  })

  test('a turn goes with its conversation, and no council takes it for one', async () => {
    await store.createConversation(local, 'a')
    const holder = '0192f0c1-2f6b-7cc0-8d2e-5f0a6d2f4b11'
    await store.turns.begin(local, 'a', { content: 'Why?', holder, leaseS: 60 })
    expect(await everything()).toEqual(['conversations/.a.turn', 'conversations/a.json'])
    await store.deleteConversation(local, 'a')
    expect(await everything()).toEqual([])
  })
})
