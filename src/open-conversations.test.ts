import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { makeTempDir, recordingLog } from '../test/harness.ts'
import { openConversations, openThreadbase, type Threadbase } from './index.ts'

const LOCAL = { userId: 'local' }
const ENV = { DATABASE_URL: undefined, NODE_ENV: undefined, DATA_DIR: undefined }

describe('a DATABASE_URL of json:', () => {
  let dir: string
  let tb: Threadbase
  beforeAll(async () => {
    dir = await makeTempDir()
    await mkdir(join(dir, 'data', 'conversations'), { recursive: true })
    const old = { id: 'old', created_at: '2024-01-01T00:00:00', title: 'of a council', messages: [] }
    await writeFile(join(dir, 'data', 'conversations', 'old.json'), JSON.stringify(old))
    tb = await openThreadbase({
      databaseUrl: `json:${join(dir, 'data')}`,
      env: { ...ENV, DATA_DIR: join(dir, 'rest') },
    })
  })
  afterAll(async () => {
    await tb?.close()
    await rm(dir, { recursive: true, force: true })
  })

  test('keeps conversations and usage in files', async () => {
    const { conversations, usage } = tb
    expect(conversations.kind).toBe('json')
    await conversations.addUserMessage(LOCAL, 'old', 'why?')
    const file = JSON.parse(await readFile(join(dir, 'data', 'conversations', 'old.json'), 'utf8'))
    expect(file.messages).toEqual([{ role: 'user', content: 'why?' }])
    await usage.consume({ userId: 'anna' })
    const counted = JSON.parse(await readFile(join(dir, 'data', 'usage', 'anna', 'usage.json'), 'utf8'))
    expect(counted).toMatchObject({ daily_used: 1, tier: 'free' })
  })

  test('sums totals from the metadata of its conversations', async () => {
    const answer = (model: string) => ({
      stage1: [{ model, response: 'x' }],
      stage2: [],
      stage3: { model, response: 'x' },
      metadata: { usage: [{ model, input_tokens: 3, output_tokens: 4, cost: 0.1 }] },
    })
    await tb.conversations.addAssistantMessage(LOCAL, 'old', answer('one'))
    await tb.conversations.addAssistantMessage(LOCAL, 'old', answer('one'))
    const totals = await tb.usage.totals(LOCAL, { since: '2024-01-01', until: '2024-01-01' })
    expect(totals).toEqual([
      { day: '2024-01-01', model: 'one', calls: 2, inputTokens: 6, outputTokens: 8, cost: 0.2 },
    ])
  })

  test('totals pass over what a hand put among the messages', async () => {
    const meta = { usage: [{ model: 'by-hand', input_tokens: 1, output_tokens: 2 }] }
    const messages = [null, 'text', 5, { role: 'assistant', metadata: meta }]
    const file = { id: 'edited', created_at: '2024-03-01T00:00:00', title: 'x', messages }
    const user = join(dir, 'data', 'conversations', 'editor')
    await mkdir(user)
    await writeFile(join(user, 'edited.json'), JSON.stringify(file))
    const totals = await tb.usage.totals({ userId: 'editor' }, { since: '2024-03-01', until: '2024-03-01' })
    expect(totals).toMatchObject([{ model: 'by-hand', calls: 1 }])
  })

  test('a change of tier is said in the log, since there is no audit log', async () => {
    const { log, logged } = recordingLog()
    await using opened = await openConversations({ url: `json:${join(dir, 'data')}`, env: ENV, log })
    await opened.usage.set({ userId: 'root', via: 'cli' }, 'anna', { tier: 'pro' })
    expect(logged.at(-1)).toMatchObject({
      message: 'audit',
      facts: { actor: 'root', user: 'anna', action: 'tier_changed' },
    })
  })

  test('all else is unavailable and says why', async () => {
    const calls = [
      () => tb.threads.list(LOCAL),
      () => tb.messages.list(LOCAL, '00000000-0000-0000-0000-000000000000'),
      () => tb.artifacts.create(LOCAL, '00000000-0000-0000-0000-000000000000', 'x'),
      () => tb.files.create(LOCAL, 'x'),
      () => tb.variables.list(LOCAL),
      () => tb.identity.users.list(),
      () => tb.audit.list(),
      () => tb.upkeep.collect(),
      () => tb.forUser('local').checkpointer.getTuple({ configurable: { thread_id: 't' } }),
      () => tb.forUser('local').store.put(['a'], 'k', {}),
    ]
    for (const call of calls)
      await expect(call(), String(call)).rejects.toMatchObject({
        code: 'unavailable',
        message: expect.stringContaining('needs a database'),
      })
  })

  test('the choice is logged, and openConversations picks it by its URL', async () => {
    const { log, logged } = recordingLog()
    await using opened = await openConversations({ url: `json:${join(dir, 'data')}`, env: ENV, log })
    expect(opened.kind).toBe('json')
    expect((await opened.listConversations(LOCAL)).map(({ id }) => id)).toEqual(['old'])
    expect(logged.find(({ message }) => message === 'opened')).toMatchObject({
      message: 'opened',
      facts: { store: expect.stringContaining('JSON files') },
    })
  })

  test('is refused in production, with accounts, and without a directory', async () => {
    const open = (env: Record<string, string>, url = 'json:./data') =>
      openConversations({ url, env: { ...ENV, ...env } })
    const refused = (message: string) => ({
      code: 'invalid_input',
      message: expect.stringContaining(message),
    })
    await expect(open({ NODE_ENV: 'production' })).rejects.toMatchObject(refused('PostgreSQL'))
    await expect(open({ AUTH_MODE: 'accounts' })).rejects.toMatchObject(refused('AUTH_MODE'))
    await expect(open({}, 'json:')).rejects.toMatchObject(refused('directory'))
  })
})

test('openConversations opens the embedded store where nothing is said', async () => {
  const dir = await makeTempDir()
  const { log, logged } = recordingLog()
  const opened = await openConversations({ dataDir: dir, env: ENV, log })
  try {
    const { id } = await opened.createConversation(LOCAL)
    expect((await opened.getConversation(LOCAL, id)).messages).toEqual([])
    expect(opened.kind).toBe('sql')
    expect(logged.find(({ message }) => message === 'opened')?.facts.store).toContain('PGlite')
  } finally {
    await opened.close()
    await rm(dir, { recursive: true, force: true })
  }
})
