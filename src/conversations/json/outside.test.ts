import { spawnSync } from 'node:child_process'
import { readdirSync, renameSync, writeFileSync } from 'node:fs'
import { mkdir, readdir, rename, rm, unlink, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { runChild } from '../../../test/child.ts'
import { answerOf, conversationOf } from '../../../test/conversation-stores.ts'
import { canMount, mountDisk } from '../../../test/disks.ts'
import { makeTempDir, recordingLog } from '../../../test/harness.ts'
import type { ConversationStore } from '../store.ts'
import { openJsonConversations } from './store.ts'

const local = { userId: 'local' }
const open = (dir: string) => openJsonConversations({ dir, log: recordingLog().log })
const textsOf = async (store: ConversationStore, id: string) =>
  (await store.getConversation(local, id)).messages.map(({ content }) => content as string)

let dir: string
let folder: string
let store: ConversationStore
beforeEach(async () => {
  dir = await makeTempDir()
  folder = join(dir, 'conversations')
  await mkdir(folder)
  store = await open(dir)
})
afterEach(() => rm(dir, { recursive: true, force: true }))
const pathOf = (id: string) => join(folder, `${id}.json`)
const edit = (id: string, others: object) =>
  writeFile(pathOf(id), JSON.stringify({ ...conversationOf(id), ...others }))

describe('a file that is changed by hand', () => {
  test('is seen at once, however it changed', async () => {
    const titles = async () => (await store.listConversations(local)).map(({ title }) => title)
    await edit('a', { title: 'one' })
    expect(await titles()).toEqual(['one'])
    // as long as before, in the same moment
    await edit('a', { title: 'two' })
    expect(await titles()).toEqual(['two'])
    await rename(pathOf('a'), pathOf('b'))
    expect(await store.listConversations(local)).toMatchObject([{ id: 'b', title: 'two' }])
    await edit('c', { title: 'new' })
    expect((await titles()).sort()).toEqual(['new', 'two'])
    await unlink(pathOf('b'))
    expect(await titles()).toEqual(['new'])
    const longAgo = new Date('2020-01-01')
    await edit('c', { title: 'old' })
    await utimes(pathOf('c'), longAgo, longAgo)
    expect(await titles()).toEqual(['old'])
    await edit('c', { title: 'odd' })
    await utimes(pathOf('c'), longAgo, longAgo)
    expect(await titles()).toEqual(['odd'])
    await rm(folder, { recursive: true })
    expect(await titles()).toEqual([])
  })

  test('is seen when changes follow each other faster than the clock of the file system ticks', async () => {
    for (let i = 0; i < 300; i++) {
      const title = `title ${i % 10}`
      await edit('a', { title })
      expect(await store.listConversations(local)).toMatchObject([{ title }])
    }
    await unlink(pathOf('a'))
    for (let i = 0; i < 300; i++) {
      await edit('b', {})
      expect(await store.listConversations(local)).toHaveLength(1)
      await unlink(pathOf('b'))
      expect(await store.listConversations(local)).toEqual([])
    }
  })

  test('is seen when it is as old and as long as one that settled', async () => {
    const longAgo = new Date('2020-01-01')
    await edit('a', { title: 'one' })
    await utimes(pathOf('a'), longAgo, longAgo)
    await delay(2_100)
    expect(await store.listConversations(local)).toMatchObject([{ title: 'one' }])
    expect(await store.listConversations(local)).toMatchObject([{ title: 'one' }])
    await edit('a', { title: 'two' })
    await utimes(pathOf('a'), longAgo, longAgo)
    expect(await store.listConversations(local)).toMatchObject([{ title: 'two' }])
  })

  test('is seen by whoever asks after it, when many ask', async () => {
    const askAfterwards = async (i: number) => {
      await delay(i)
      await edit(`c${i}`, { title: `title ${i}` })
      const listed = await store.listConversations(local)
      return listed.some(({ id, title }) => id === `c${i}` && title === `title ${i}`)
    }
    const seen = await Promise.all(Array.from({ length: 100 }, (_, i) => askAfterwards(i)))
    expect(seen.filter((one) => !one)).toEqual([])
  })

  test('keeps the change when messages are added', async () => {
    await store.createConversation(local, 'a')
    await store.addUserMessage(local, 'a', 'ours')
    const now = await store.getConversation(local, 'a')
    await edit('a', { ...now, note: 'by hand', messages: [{ role: 'user', content: 'corrected' }] })
    await store.addUserMessage(local, 'a', 'ours, too')
    expect(await store.getConversation(local, 'a')).toMatchObject({ note: 'by hand' })
    expect(await textsOf(store, 'a')).toEqual(['corrected', 'ours, too'])
  })

  test('keeps the change, too, when it comes while a message is being written', async () => {
    const filler = { role: 'user', content: 'x'.repeat(1_000_000) }
    await edit('a', { messages: [filler] })
    const appending = store.addUserMessage(local, 'a', 'ours')
    while (!readdirSync(folder).some((name) => name.endsWith('.tmp'))) await nextTurn()
    // at once: the message is written, but has not its place yet
    const edited = conversationOf('a', [filler, { role: 'user', content: 'by hand' }])
    writeFileSync(join(folder, '.edited'), JSON.stringify(edited))
    renameSync(join(folder, '.edited'), pathOf('a'))
    await appending
    expect((await textsOf(store, 'a')).slice(1)).toEqual(['by hand', 'ours'])
    expect(await readdir(folder)).toEqual(['a.json'])
  })

  test('is read when another program has written all of it', async () => {
    await edit('a', { title: 'one' })
    const text = JSON.stringify(conversationOf('a', [], { title: 'two' }))
    await writeFile(pathOf('a'), text.slice(0, 30))
    const reading = store.getConversation(local, 'a')
    await delay(30)
    await writeFile(pathOf('a'), text)
    expect(await reading).toMatchObject({ title: 'two' })
  })
})

describe('two processes', () => {
  test('lose no message of one conversation', async () => {
    await store.createConversation(local, 'a')
    const children = ['x', 'y'].map((name) =>
      runChild('append-conversations.ts', { dir, name, ids: ['a'], times: 60 }),
    )
    await Promise.all(children.map((child) => child.nextLine()))
    const own = Array.from({ length: 20 }, (_, i) => store.addUserMessage(local, 'a', `z ${i}`))
    for (const child of children) expect(await child.rest()).toHaveLength(60)
    await Promise.all(own)
    const texts = await textsOf(store, 'a')
    const of = (name: string) => texts.filter((text) => text.startsWith(name))
    for (const name of ['x', 'y'])
      expect(of(name)).toEqual(Array.from({ length: 60 }, (_, i) => `${name} ${i}`))
    expect(texts).toHaveLength(140)
    expect(await readdir(folder)).toEqual(['a.json'])
  })

  test("see each other's conversations in one folder", async () => {
    const children = ['x', 'y'].map((name) =>
      runChild('append-conversations.ts', { dir, name, ids: [], times: 25 }),
    )
    for (const child of children) {
      const said = (await child.rest()) as { id?: string; content?: string }[]
      for (const { id, content } of said)
        if (id !== undefined) expect(await textsOf(store, id)).toEqual([content])
    }
    expect(await store.listConversations(local)).toHaveLength(50)
    expect((await readdir(folder)).filter((name) => name.startsWith('.'))).toEqual([])
  })
})

describe('a process that is killed while it writes', () => {
  test('leaves no half file and loses nothing that it said; its lock is taken over', async () => {
    await store.createConversation(local, 'a')
    const said: string[] = []
    let stale = 0
    for (let round = 0; round < 12; round++) {
      const fill = 'x'.repeat(20_000)
      const child = runChild('append-conversations.ts', {
        dir,
        name: `r${round}`,
        ids: ['a'],
        times: 500,
        fill,
      })
      await child.nextLine()
      const until = Date.now() + 20 + 15 * round
      const collecting = child.rest()
      await delay(Math.max(0, until - Date.now()))
      await child.kill()
      // a last line may have been cut in the pipe
      const lines = (await collecting.catch(() => [])) as { content: string }[]
      said.push(...lines.map(({ content }) => content))
      if ((await readdir(folder)).includes('.a.lock')) stale++
      await store.addUserMessage(local, 'a', `after ${round}`)
    }
    const texts = (await textsOf(store, 'a')).map((text) => text.replace(/x+$/, ''))
    expect(said.filter((text) => !texts.includes(text))).toEqual([])
    expect(new Set(texts).size).toBe(texts.length)
    expect(said.length).toBeGreaterThan(5)
    expect(stale, 'no lock was left: nothing was killed in the middle').toBeGreaterThan(0)
    const longAgo = new Date(Date.now() - 4_000_000)
    for (const name of await readdir(folder))
      if (name.startsWith('.')) await utimes(join(folder, name), longAgo, longAgo)
    await store.listConversations(local)
    expect(await readdir(folder)).toEqual(['a.json'])
  }, 60_000)
})

describe.skipIf(!canMount())('a disk that is full', () => {
  let disk: string
  let full: ConversationStore
  beforeAll(async () => {
    disk = await makeTempDir()
    expect(mountDisk(disk, 2 << 20)).toBe(true)
    full = await open(disk)
  })
  afterAll(async () => {
    spawnSync('umount', [disk])
    await rm(disk, { recursive: true, force: true })
  })

  test('is unavailable, and what was stored is whole', async () => {
    await full.createConversation(local, 'a')
    await full.addUserMessage(local, 'a', 'x'.repeat(500_000))
    await full.createConversation(local, 'b')
    const holder = '0192f0c1-2f6b-7cc0-8d2e-5f0a6d2f4b11'
    const before = await full.getConversation(local, 'a')
    const refused = { code: 'unavailable', details: { code: 'ENOSPC' } }
    const large = 'y'.repeat(1_700_000)
    await expect(full.addUserMessage(local, 'a', large)).rejects.toMatchObject(refused)
    await expect(full.addAssistantMessage(local, 'a', answerOf(large))).rejects.toMatchObject(refused)
    await expect(
      full.saveConversation(local, conversationOf('c', [{ content: large }])),
    ).rejects.toMatchObject(refused)
    await expect(full.turns.begin(local, 'a', { content: large, holder, leaseS: 60 })).rejects.toMatchObject(
      refused,
    )
    expect(await full.getConversation(local, 'a')).toEqual(before)
    expect((await readdir(join(disk, 'conversations'))).sort()).toEqual(['a.json', 'b.json'])
    // not even a lock has room
    await writeFile(join(disk, 'filler'), Buffer.alloc(4 << 20)).catch(() => {})
    await expect(full.addUserMessage(local, 'b', 'small')).rejects.toMatchObject(refused)
    expect(await full.getConversation(local, 'a')).toEqual(before)
    expect(await full.listConversations(local)).toHaveLength(2)
    // what makes room works
    expect(await full.deleteConversation(local, 'a')).toBe(true)
    await full.addUserMessage(local, 'b', 'first')
    await rm(join(disk, 'filler'))
    await full.addUserMessage(local, 'b', 'small')
    expect(await textsOf(full, 'b')).toEqual(['first', 'small'])
    expect((await readdir(join(disk, 'conversations'))).filter((name) => name.startsWith('.'))).toEqual([])
  })
})
