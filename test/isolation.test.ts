import { randomUUID } from 'node:crypto'
import { Readable } from 'node:stream'
import { uuid6 } from '@langchain/langgraph-checkpoint'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ThreadbaseError } from '../src/core/errors.ts'
import type { Threadbase } from '../src/threadbase.ts'
import { newBytes } from './accounts.ts'
import { unread } from './bytes.ts'
import { engines, type TestDatabase } from './harness.ts'
import { announce } from './uploads.ts'
import { unzip } from './zip.ts'

const A = { userId: 'alice' }
const B = { userId: 'bob' }
const DORA = { userId: 'dora' }

type Ids = {
  thread: string
  message: string
  key: string
  session: string
  variable: string
  artifact: string
  file: string
  artifactUpload: string
  fileUpload: string
  object: string
  council: string
  analysed: string
}
type Call = (tb: Threadbase, ids: Ids) => Promise<unknown>
const NOT_FOUND = Symbol('not_found')

const CHECKPOINT = {
  v: 4,
  id: uuid6(0),
  ts: '2026-01-01T00:00:00.000Z',
  channel_values: { a: 'secret', list: [{ text: 'secret'.repeat(50) }] },
  channel_versions: { a: 1, list: 1 },
  versions_seen: {},
}
const STOLEN = { summary: 'stolen' }
const NOTES = ['notes']
/** Of the answer that is under way in A's conversation. */
const TURN = randomUUID()
const stateOf = ({ userId }: { userId: string }, thread: string) => ({
  configurable: { thread_id: thread, checkpoint_ns: '', user_id: userId },
})
const stateOfA = (tb: Threadbase, thread: string) => tb.checkpointer.getTuple(stateOf(A, thread))

// Every function of every service, called by B with the ids of A, and what must come of it. A function that is not
// here fails the first test: whoever adds one says here how it treats a stranger.
const CALLS: Record<string, Record<string, [call: Call, expected: unknown]>> = {
  threads: {
    // the id is free in B's own world: B gets a thread of B's
    create: [async (tb, { thread }) => (await tb.threads.create(B, { id: thread, title: 'b' })).title, 'b'],
    createOrFind: [async (tb) => (await tb.threads.createOrFind(B, { id: randomUUID() })).created, true],
    createMany: [async (tb) => tb.threads.createMany(B, []), []],
    findMany: [async (tb, { thread }) => [...(await tb.threads.findMany(B, [thread])).keys()], []],
    findThread: [(tb, { thread }) => tb.threads.findThread(B, thread), undefined],
    getThread: [(tb, { thread }) => tb.threads.getThread(B, thread), NOT_FOUND],
    list: [(tb) => tb.threads.list(B), { items: [] }],
    update: [(tb, { thread }) => tb.threads.update(B, thread, { title: 'stolen' }), NOT_FOUND],
    archive: [(tb, { thread }) => tb.threads.archive(B, thread), NOT_FOUND],
    unarchive: [(tb, { thread }) => tb.threads.unarchive(B, thread), NOT_FOUND],
    end: [(tb, { thread }) => tb.threads.end(B, thread), NOT_FOUND],
    delete: [(tb, { thread }) => tb.threads.delete(B, thread), false],
    fork: [(tb, { thread }) => tb.threads.fork(B, thread), NOT_FOUND],
  },
  messages: {
    append: [(tb, { thread }) => tb.messages.append(B, thread, [{ role: 'user', content: 'x' }]), NOT_FOUND],
    appendOrFind: [
      (tb, { thread }) =>
        tb.messages.appendOrFind(B, thread, [{ role: 'user', content: 'secret', messageId: 'm' }]),
      NOT_FOUND,
    ],
    appendMany: [
      async (tb, { thread }) => {
        const messages = [{ role: 'user' as const, content: 'x' }]
        const [outcome] = await tb.messages.appendMany(B, [{ threadId: thread, messages }])
        return [outcome?.added, outcome?.error?.code]
      },
      [0, 'not_found'],
    ],
    listDigests: [(tb, { thread }) => tb.messages.listDigests(B, [thread]), []],
    readPath: [(tb, { thread }) => collectAll(tb.messages.readPath(B, thread, 100)), []],
    list: [(tb, { thread }) => tb.messages.list(B, thread), NOT_FOUND],
    findMessage: [(tb, { thread, message }) => tb.messages.findMessage(B, thread, message), undefined],
    getMessage: [(tb, { thread, message }) => tb.messages.getMessage(B, thread, message), NOT_FOUND],
    update: [
      (tb, { thread, message }) => tb.messages.update(B, thread, message, { meta: { a: 1 } }),
      NOT_FOUND,
    ],
    delete: [(tb, { thread, message }) => tb.messages.delete(B, thread, message), false],
    clear: [(tb, { thread }) => tb.messages.clear(B, thread), 0],
    // of the process: numbers alone
    queueStats: [async (tb) => tb.messages.queueStats(), { waiting: 0, running: 0 }],
  },
  conversations: {
    createConversation: [async (tb) => (await tb.conversations.createConversation(B)).messages, []],
    findConversation: [(tb, { council }) => tb.conversations.findConversation(B, council), undefined],
    getConversation: [(tb, { council }) => tb.conversations.getConversation(B, council), NOT_FOUND],
    // the id is free in B's own world
    saveConversation: [
      async (tb, { council }) => {
        await tb.conversations.saveConversation(B, { id: council, created_at: '', title: 'b', messages: [] })
        const [own] = await tb.conversations.listConversations(B)
        await tb.conversations.deleteConversation(B, council)
        return own?.title
      },
      'b',
    ],
    listConversations: [(tb) => tb.conversations.listConversations(B), []],
    addUserMessage: [(tb, { council }) => tb.conversations.addUserMessage(B, council, 'x'), NOT_FOUND],
    addAssistantMessage: [
      (tb, { council }) =>
        tb.conversations.addAssistantMessage(B, council, {
          stage1: [],
          stage2: [],
          stage3: { model: 'm', response: 'x' },
        }),
      NOT_FOUND,
    ],
    updateConversationTitle: [
      (tb, { council }) => tb.conversations.updateConversationTitle(B, council, 'stolen'),
      NOT_FOUND,
    ],
    deleteConversation: [(tb, { council }) => tb.conversations.deleteConversation(B, council), false],
    search: [(tb) => tb.conversations.search(B, 'secret'), []],
    export: [(tb, { council }) => tb.conversations.export(B, council, 'json'), NOT_FOUND],
    close: [(tb) => tb.conversations.close(), undefined],
  },
  search: {
    messages: [async (tb) => (await tb.search.messages(B, { q: 'secret', mode: 'text' })).items, []],
  },
  council: {
    ask: [(tb, { council }) => tb.council.ask(B, council, 'secret'), NOT_FOUND],
  },
  embeddings: {
    // a message that B does not have needs no waiting
    wait: [(tb, { message }) => tb.embeddings.wait(B, [message]), 'off'],
    // of all users: numbers alone
    status: [async (tb) => Object.keys(await tb.embeddings.status()).includes('waiting'), true],
    backlog: [(tb) => tb.embeddings.backlog(), 0],
    backfill: [(tb) => tb.embeddings.backfill().catch((error) => error.code), 'unsupported'],
    buildIndex: [
      (tb) => tb.embeddings.buildIndex({ type: 'hnsw' }).catch((error) => error instanceof ThreadbaseError),
      true,
    ],
  },
  'conversations.turns': {
    begin: [
      (tb, { council }) =>
        tb.conversations.turns.begin(B, council, { content: 'x', holder: randomUUID(), leaseS: 9 }),
      NOT_FOUND,
    ],
    save: [
      (tb, { council }) => tb.conversations.turns.save(B, council, TURN, { content: 'stolen' }, 9),
      NOT_FOUND,
    ],
    finish: [
      (tb, { council }) =>
        tb.conversations.turns.finish(B, council, TURN, {
          stage1: [],
          stage2: [],
          stage3: { model: 'm', response: 'x' },
        }),
      NOT_FOUND,
    ],
    release: [(tb, { council }) => tb.conversations.turns.release(B, council, TURN), undefined],
  },
  transfer: {
    export: [(tb, { thread }) => collect(tb.transfer.export(B, { threadId: thread })), NOT_FOUND],
    // a file with the id of A's thread in it makes a thread of B's
    import: [
      async (tb, { thread }) => {
        const line = { id: thread, messages: [{ role: 'user', content: 'of bob' }] }
        await tb.transfer.import(B, Readable.from([Buffer.from(`${JSON.stringify(line)}\n`)]))
        const owners = (await tb.threads.list(B)).items.map(({ userId }) => userId)
        return [owners.length > 0, ...new Set(owners)]
      },
      [true, 'bob'],
    ],
  },
  'identity.keys': {
    // B has an account of B's own
    create: [
      async (tb) => (await tb.identity.keys.create(B, BY_B, { name: 'of bob' })).apiKey.userId,
      B.userId,
    ],
    list: [async (tb) => (await tb.identity.keys.list(B)).items.map(({ userId }) => userId), [B.userId]],
    getKey: [(tb, { key }) => tb.identity.keys.getKey(B, key), NOT_FOUND],
    revoke: [(tb, { key }) => tb.identity.keys.revoke(B, BY_B, key), false],
  },
  credentials: {
    // all of a user; what it gives is below
    forUser: [(tb) => tb.credentials.forUser(B.userId).find('openai'), undefined],
  },
  'credentials.forUser()': {
    resolve: [(tb) => tb.credentials.forUser(B.userId).resolve('openai'), NOT_FOUND],
    find: [(tb) => tb.credentials.forUser(B.userId).find('openai'), undefined],
  },
  'credentials.apiKeys': {
    list: [(tb) => tb.credentials.apiKeys.list(B), { items: [] }],
    findKey: [(tb) => tb.credentials.apiKeys.findKey(B, 'openai'), undefined],
    getKey: [(tb) => tb.credentials.apiKeys.getKey(B, 'openai'), NOT_FOUND],
    delete: [(tb) => tb.credentials.apiKeys.delete(B, BY_B, 'openai'), false],
    // the provider is free in B's own world
    put: [
      async (tb) => {
        const { created } = await tb.credentials.apiKeys.put(B, BY_B, 'openai', { apiKey: 'of bob' })
        const stored = await tb.credentials.forUser(B.userId).resolve('openai')
        await tb.credentials.apiKeys.delete(B, BY_B, 'openai')
        return [created, stored]
      },
      [true, 'of bob'],
    ],
  },
  variables: {
    list: [(tb) => tb.variables.list(B), { items: [] }],
    getVariable: [(tb, { variable }) => tb.variables.getVariable(B, variable), NOT_FOUND],
    resolve: [(tb) => tb.variables.resolve(B, 'NAME'), NOT_FOUND],
    update: [(tb, { variable }) => tb.variables.update(B, BY_B, variable, { value: 'stolen' }), NOT_FOUND],
    delete: [(tb, { variable }) => tb.variables.delete(B, BY_B, variable), false],
    // the name is free in B's own world
    create: [
      async (tb) => {
        const { id } = await tb.variables.create(B, BY_B, { name: 'NAME', value: 'of bob' })
        const stored = await tb.variables.resolve(B, 'NAME')
        await tb.variables.delete(B, BY_B, id)
        return stored
      },
      'of bob',
    ],
  },
  sessions: {
    list: [(tb) => tb.sessions.list(B), { items: [] }],
    findSession: [(tb, { analysed }) => tb.sessions.findSession(B, analysed), undefined],
    getSession: [(tb, { analysed }) => tb.sessions.getSession(B, analysed), NOT_FOUND],
    end: [(tb, { analysed }) => tb.sessions.end(B, analysed), NOT_FOUND],
    // the id is free in B's own world
    create: [
      async (tb, { analysed }) => {
        const { title, analysisVersion } = await tb.sessions.create(B, { id: analysed, title: 'b' })
        await tb.threads.delete(B, analysed)
        return [title, analysisVersion]
      },
      ['b', null],
    ],
    createOrFind: [
      async (tb, { analysed }) => {
        const { created } = await tb.sessions.createOrFind(B, { id: analysed })
        await tb.threads.delete(B, analysed)
        return created
      },
      true,
    ],
  },
  analyses: {
    findAnalysis: [(tb, { analysed }) => tb.analyses.findAnalysis(B, analysed), NOT_FOUND],
    getAnalysis: [(tb, { analysed }) => tb.analyses.getAnalysis(B, analysed), NOT_FOUND],
    put: [(tb, { analysed }) => tb.analyses.put(B, analysed, STOLEN, { ifVersion: '*' }), NOT_FOUND],
    createOrReplace: [(tb, { analysed }) => tb.analyses.createOrReplace(B, analysed, STOLEN), NOT_FOUND],
    patch: [(tb, { analysed }) => tb.analyses.patch(B, analysed, STOLEN, { ifVersion: '*' }), NOT_FOUND],
    delete: [(tb, { analysed }) => tb.analyses.delete(B, analysed), false],
    listVersions: [(tb, { analysed }) => tb.analyses.listVersions(B, analysed), NOT_FOUND],
    getVersion: [(tb, { analysed }) => tb.analyses.getVersion(B, analysed, 1), NOT_FOUND],
  },
  usage: {
    consume: [async (tb) => (await tb.usage.consume(B, 10)).usage.dailyUsed, 10],
    refund: [
      async (tb) => {
        const { receipt } = await tb.usage.consume({ userId: 'carol' }, 3)
        await tb.usage.refund(B, receipt)
      },
      undefined,
    ],
    read: [async (tb) => (await tb.usage.read(B)).userId, B.userId],
    totals: [(tb) => tb.usage.totals(B), []],
  },
  gdpr: {
    count: [async (tb) => Object.keys((await tb.gdpr.count(B)).rows).includes('api_keys'), true],
    // nothing of A's in it
    export: [
      async (tb) => {
        const { stream, report } = await tb.gdpr.export(B, BY_B)
        const files = await unzip(Buffer.concat(await collectAll(stream as AsyncIterable<Buffer>)))
        await report
        const all = Buffer.concat([...files.values()])
        return [all.includes(B.userId), all.includes('of alice')]
      },
      [true, false],
    ],
    findTombstone: [(tb) => tb.gdpr.findTombstone(B), undefined],
    // of a user of their own, whom nobody else needs
    erase: [
      async (tb) => {
        await tb.files.create(DORA, 'of alice')
        return (await tb.gdpr.erase(DORA, BY_B)).rows
      },
      { files: 1 },
    ],
    readmit: [
      async (tb) => {
        if ((await tb.gdpr.findTombstone(DORA)) === undefined) await tb.gdpr.erase(DORA, BY_B)
        await tb.gdpr.readmit(DORA, BY_B)
      },
      undefined,
    ],
  },
  'identity.sessions': {
    signOut: [(tb, { session }) => tb.identity.sessions.signOut(BY_B, session), undefined],
    signOutAll: [(tb, { session }) => tb.identity.sessions.signOutAll(BY_B, session), undefined],
  },
  checkpointer: {
    getTuple: [(tb, { thread }) => tb.checkpointer.getTuple(stateOf(B, thread)), undefined],
    list: [(tb, { thread }) => collectAll(tb.checkpointer.list(stateOf(B, thread))), []],
    // the thread and the checkpoint are free in B's own world
    put: [
      async (tb, { thread }) => {
        const parent = await stateOfA(tb, thread)
        const config = { configurable: { ...parent?.config.configurable, user_id: B.userId } }
        await tb.checkpointer.put(config, CHECKPOINT, { source: 'loop', step: 0, parents: {} }, {})
        const [found] = await collectAll(tb.checkpointer.list(stateOf(B, thread)))
        await tb.checkpointer.deleteThread(thread, B)
        return found?.checkpoint.id
      },
      CHECKPOINT.id,
    ],
    putWrites: [
      async (tb, { thread }) => {
        const parent = await stateOfA(tb, thread)
        const config = { configurable: { ...parent?.config.configurable, user_id: B.userId } }
        await tb.checkpointer.putWrites(config, [['a', 'stolen']], 'task')
        await tb.checkpointer.deleteThread(thread, B)
      },
      undefined,
    ],
    getDeltaChannelHistory: [
      (tb, { thread }) =>
        tb.checkpointer.getDeltaChannelHistory({ config: stateOf(B, thread), channels: ['a'] }),
      { a: { writes: [] } },
    ],
    deleteThread: [(tb, { thread }) => tb.checkpointer.deleteThread(thread, B), undefined],
    prune: [
      (tb, { thread }) => tb.checkpointer.prune({ ...B, threadIds: [thread], keepLatest: 0 }),
      { checkpoints: 0, writes: 0, blobs: 0 },
    ],
    deleteForRuns: [
      (tb) => tb.checkpointer.deleteForRuns(['run'], B),
      { checkpoints: 0, writes: 0, blobs: 0 },
    ],
    copyThread: [(tb, { thread }) => tb.checkpointer.copyThread(thread, 'copy', B), NOT_FOUND],
    listThreads: [(tb) => tb.checkpointer.listThreads(B), { items: [] }],
    // of the process: a random text
    getNextVersion: [async (tb) => typeof tb.checkpointer.getNextVersion(undefined), 'string'],
  },
  store: {
    batch: [
      (tb) =>
        tb.store.batch([{ namespace: NOTES, key: 'k' }, { namespacePrefix: [] }, { limit: 9, offset: 0 }], B),
      [null, [], []],
    ],
    get: [(tb) => tb.store.get(NOTES, 'k', B), null],
    search: [(tb) => tb.store.search([], { query: 'secret', ...B }), []],
    // the place is free in B's own world
    put: [
      async (tb) => {
        await tb.store.put(NOTES, 'k', { text: 'stolen' }, undefined, B)
        const found = await tb.store.get(NOTES, 'k', B)
        await tb.store.delete(NOTES, 'k', B)
        return found?.value
      },
      { text: 'stolen' },
    ],
    delete: [(tb) => tb.store.delete(NOTES, 'k', B), undefined],
    listNamespaces: [(tb) => tb.store.listNamespaces(B), []],
    // of the installation: it removes what nobody can read
    sweepExpired: [(tb) => tb.store.sweepExpired(), 0],
  },
  documents: {
    // the collection and its ids are free in B's own world
    put: [
      async (tb) => {
        const stolen = { id: 'd', pageContent: 'stolen', vector: [0, 1] }
        await tb.documents.put(B, 'docs', [stolen])
        return tb.documents.delete(B, 'docs', { all: true })
      },
      1,
    ],
    search: [(tb) => tb.documents.search(B, 'docs', [1, 0]), []],
    delete: [
      async (tb) => [
        await tb.documents.delete(B, 'docs', { ids: ['d'] }),
        await tb.documents.delete(B, 'docs', { filter: { of: 'alice' } }),
        await tb.documents.delete(B, 'docs', { all: true }),
      ],
      [0, 0, 0],
    ],
  },
  artifacts: {
    create: [
      (tb, { thread }) =>
        // nothing of the bytes is taken in
        tb.artifacts.create(B, thread, unread()),
      NOT_FOUND,
    ],
    startUpload: [(tb, { thread }) => tb.artifacts.startUpload(B, thread, announce('x')), NOT_FOUND],
    completeUpload: [
      (tb, { thread, artifactUpload }) => tb.artifacts.completeUpload(B, thread, artifactUpload),
      NOT_FOUND,
    ],
    ingest: [(tb, { thread, object }) => tb.artifacts.ingest(B, thread, { s3Key: object }), NOT_FOUND],
    list: [(tb, { thread }) => tb.artifacts.list(B, thread), NOT_FOUND],
    findArtifact: [(tb, { artifact }) => tb.artifacts.findArtifact(B, artifact), undefined],
    getArtifact: [(tb, { artifact }) => tb.artifacts.getArtifact(B, artifact), NOT_FOUND],
    head: [(tb, { artifact }) => tb.artifacts.head(B, artifact), NOT_FOUND],
    presign: [(tb, { artifact }) => tb.artifacts.presign(B, artifact), NOT_FOUND],
    read: [(tb, { artifact }) => tb.artifacts.read(B, artifact), NOT_FOUND],
    delete: [(tb, { artifact }) => tb.artifacts.delete(B, artifact), false],
  },
  files: {
    // the name is free in B's own world
    create: [
      async (tb) => {
        const { id, name } = await tb.files.create(B, 'of bob', { filename: 'of alice' })
        await tb.files.delete(B, id)
        return name
      },
      'of alice',
    ],
    startUpload: [async (tb) => (await tb.files.startUpload(B, announce('x'))).method, 'PUT'],
    completeUpload: [(tb, { fileUpload }) => tb.files.completeUpload(B, fileUpload), NOT_FOUND],
    list: [(tb) => tb.files.list(B), { items: [] }],
    findFile: [(tb, { file }) => tb.files.findFile(B, file), undefined],
    getFile: [(tb, { file }) => tb.files.getFile(B, file), NOT_FOUND],
    head: [(tb, { file }) => tb.files.head(B, file), NOT_FOUND],
    presign: [(tb, { file }) => tb.files.presign(B, file), NOT_FOUND],
    read: [(tb, { file }) => tb.files.read(B, file), NOT_FOUND],
    update: [(tb, { file }) => tb.files.update(B, file, { name: 'stolen' }), NOT_FOUND],
    delete: [(tb, { file }) => tb.files.delete(B, file), false],
  },
  configs: {
    // of the installation: there is nothing of a user in it
    defaults: [async (tb) => tb.configs.defaults().model, null],
    get: [(tb, { thread }) => tb.configs.get(B, thread), NOT_FOUND],
    put: [(tb, { thread }) => tb.configs.put(B, thread, { model: 'stolen' }), NOT_FOUND],
    patch: [(tb, { thread }) => tb.configs.patch(B, thread, { model: 'stolen' }), NOT_FOUND],
  },
}

async function collectAll<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}

async function collect(text: AsyncIterable<string>): Promise<string> {
  let all = ''
  for await (const part of text) all += part
  return all
}

const BY_A = { userId: A.userId, via: 'library' } as const
const BY_B = { userId: B.userId, via: 'library' } as const

// For operators and for those who find out who calls: they take no scope. What they must not do is give away a secret,
// or what is A's to somebody who only claims to be.
const OPERATORS = [
  // says nothing of anybody
  'embeddings.embed',
  'identity.users.cacheKey',
  'identity.users.checkPassword',
  'identity.users.create',
  'identity.users.ensure',
  'identity.users.find',
  'identity.users.findOwn',
  'identity.users.getUser',
  'identity.users.hasAccounts',
  'identity.users.hasPassword',
  'identity.users.list',
  'identity.users.resetPassword',
  'identity.users.standing',
  'identity.users.update',
  'identity.users.updateProfile',
  'identity.users.changePassword',
  'identity.keys.authenticate',
  'identity.keys.cacheKeys',
  'identity.keys.close',
  'identity.keys.flushUses',
  'identity.sessions.authenticate',
  'identity.sessions.cacheKeys',
  'identity.sessions.csrfToken',
  'identity.sessions.isCsrfToken',
  'identity.sessions.ofAccessToken',
  'identity.sessions.ofRefreshToken',
  'identity.sessions.open',
  'identity.sessions.refresh',
  'identity.sessions.revokeAlong',
  'identity.sessions.sweep',
  'identity.signIn.countAttempt',
  'identity.signIn.forgiveAttempt',
  'identity.signIn.signIn',
  'identity.ofAccessToken',
  'identity.ofExternalToken',
  'identity.ofKey',
  'identity.ofProxy',
  'identity.close',
  'identity.forget',
  'audit.list',
  'audit.record',
  'council.close',
  'council.idle',
  'upkeep.collect',
  'upkeep.verify',
  'conversationMove.migrate',
  'conversationMove.export',
  'conversationMove.backup',
  'usage.importRecords',
  'usage.records',
  'usage.set',
]

/** What is on a Threadbase and no service. */
const NO_SERVICES = new Set(['database', 'blobs', 'cache', 'bus', 'limiter', 'close', 'forUser'])

/** Services that are instances of a class. */
const CLASSES = new Set(['checkpointer', 'store'])

/** The functions of every service, as `service.function`. */
function listFunctions(tb: Threadbase): string[] {
  const within = (name: string, service: object): string[] =>
    Object.entries(service).flatMap(([key, value]) => {
      if (typeof value === 'function') return [`${name}.${key}`]
      return typeof value === 'object' ? within(`${name}.${key}`, value) : []
    })
  const made = within('credentials.forUser()', tb.credentials.forUser('anybody'))
  const onTop = Object.entries(tb).flatMap(([name, service]) => {
    if (NO_SERVICES.has(name)) return []
    return CLASSES.has(name) ? methodsOf(name, service as object) : within(name, service)
  })
  return [...onTop, ...made]
}

/** Of an instance of a class, what the class itself has. */
function methodsOf(name: string, service: object): string[] {
  const methods = Object.getOwnPropertyDescriptors(Object.getPrototypeOf(service) as object)
  return Object.entries(methods).flatMap(([key, { value }]) =>
    key !== 'constructor' && typeof value === 'function' ? [`${name}.${key}`] : [],
  )
}

for (const engine of engines) {
  describe.skipIf(!engine.available)(`users are apart on ${engine.name}`, () => {
    let opened: TestDatabase
    let ids: Ids
    let hers: string
    beforeAll(async () => {
      opened = await engine.open()
      const { tb } = opened
      const { id: thread } = await tb.threads.create(A, { id: randomUUID(), title: 'of alice' })
      const [message] = await tb.messages.append(A, thread, [
        { role: 'user', content: 'secret', messageId: 'm' },
      ])
      const calls = [{ model: 'hers', input_tokens: 1, output_tokens: 2 }]
      await tb.messages.append(A, thread, [{ role: 'assistant', content: 'secret', meta: { usage: calls } }])
      await tb.usage.consume(A)
      await tb.configs.put(A, thread, { model: 'hers' })
      const state = await tb
        .forUser(A.userId)
        .checkpointer.put(
          { configurable: { thread_id: thread } },
          CHECKPOINT,
          { source: 'loop', step: 0, parents: {}, run_id: 'run' } as never,
          CHECKPOINT.channel_versions,
        )
      await tb.forUser(A.userId).checkpointer.putWrites(state, [['a', 'secret']], 'task')
      await tb.forUser(A.userId).store.put(NOTES, 'k', { text: 'secret' })
      const document = { id: 'd', pageContent: 'secret', metadata: { of: 'alice' }, vector: [1, 0] }
      await tb.documents.put(A, 'docs', [document])
      for (const { userId: id } of [A, B]) await tb.identity.users.ensure({ id, provider: 'proxy' })
      await opened.database.db
        .updateTable('users')
        .set({ password_hash: 'x' })
        .where('id', '=', A.userId)
        .execute()
      const { sessionId: session } = await tb.identity.sessions.open(A.userId, 'x')
      const { apiKey, key } = await tb.identity.keys.create(A, BY_A, { name: 'of alice' })
      hers = key
      await tb.credentials.apiKeys.put(A, BY_A, 'openai', { apiKey: 'secret of alice' })
      const { id: variable } = await tb.variables.create(A, BY_A, { name: 'NAME', value: 'secret' })
      const bytes = await newBytes(tb, A.userId, thread, 'of alice')
      const { id: council } = await tb.conversations.createConversation(A)
      await tb.conversations.turns.begin(A, council, { content: 'secret', holder: TURN, leaseS: 600 })
      const { id: analysed } = await tb.sessions.create(A)
      await tb.analyses.put(A, analysed, { summary: 'secret' })
      await tb.analyses.patch(A, analysed, { solutions: ['secret'] }, { ifVersion: 1 })
      ids = {
        thread,
        message: message?.id as string,
        key: apiKey.id,
        session,
        variable,
        council,
        analysed,
        ...bytes,
      }
    })
    afterAll(() => opened?.close())

    const everythingOfA = async ({ tb }: TestDatabase) => ({
      threads: await tb.threads.list(A, { includeArchived: true }),
      messages: await tb.messages.list(A, ids.thread),
      config: await tb.configs.get(A, ids.thread),
      council: await tb.conversations.getConversation(A, ids.council),
      turns: await opened.database.db
        .selectFrom('council_turns')
        .selectAll()
        .where('user_id', '=', A.userId)
        .execute(),
      session: await tb.sessions.getSession(A, ids.analysed),
      analysis: await tb.analyses.getAnalysis(A, ids.analysed),
      versions: [
        await tb.analyses.listVersions(A, ids.analysed),
        await tb.analyses.getVersion(A, ids.analysed, 1),
      ],
      artifacts: await tb.artifacts.list(A, ids.thread),
      files: await tb.files.list(A),
      states: await collectAll(tb.checkpointer.list(stateOf(A, ids.thread))),
      notes: await tb.store.search([], A),
      documents: await tb.documents.search(A, 'docs', [1, 0], { withVectors: true }),
      key: await tb.identity.ofKey(hers),
      keys: (await tb.identity.keys.list(A)).items.map(({ id }) => id),
      providerKey: await tb.credentials.forUser(A.userId).resolve('openai'),
      variable: await tb.variables.resolve(A, 'NAME'),
      usage: [await tb.usage.read(A), await tb.usage.totals(A)],
      masks: [await tb.credentials.apiKeys.list(A), await tb.variables.list(A)],
      sessions: await opened.database.db
        .selectFrom('sessions')
        .select(['id', 'revoked_at'])
        .where('user_id', '=', A.userId)
        .execute(),
    })

    test('every function of every service is covered here', () => {
      const covered = Object.entries(CALLS).flatMap(([service, calls]) =>
        Object.keys(calls).map((name) => `${service}.${name}`),
      )
      expect(listFunctions(opened.tb).sort()).toEqual([...covered, ...OPERATORS].sort())
    })

    const all = Object.entries(CALLS).flatMap(([service, calls]) =>
      Object.entries(calls).map(([name, [call, expected]]) => ({
        name: `${service}.${name}`,
        call,
        expected,
      })),
    )
    // what makes a thread for B comes last: then B's lists are empty for the others
    const making = [
      'threads.create',
      'threads.createOrFind',
      'transfer.import',
      'conversations.createConversation',
    ]
    const ordered = [
      ...all.filter(({ name }) => !making.includes(name)),
      ...all.filter(({ name }) => making.includes(name)),
    ]

    test.each(ordered)('$name tells B nothing of A and changes nothing', async ({ call, expected }) => {
      const before = await everythingOfA(opened)
      const calling = call(opened.tb, ids)
      if (expected === NOT_FOUND) await expect(calling).rejects.toMatchObject({ code: 'not_found' })
      else expect(await calling).toEqual(expected)
      expect(await everythingOfA(opened)).toEqual(before)
    })

    test("B's own thread does not lead to A's messages", async () => {
      const { tb } = opened
      const { id: own } = await tb.threads.create(B)
      await expect(tb.messages.getMessage(B, own, ids.message)).rejects.toMatchObject({ code: 'not_found' })
      await expect(tb.messages.list(B, own, { leaf: ids.message })).rejects.toMatchObject({
        code: 'not_found',
      })
      for (const parentId of [ids.message, 'm']) {
        const call = tb.messages.append(B, own, [{ role: 'user', content: 'x', parentId }])
        await expect(call).rejects.toMatchObject({ code: 'invalid_input' })
      }
      // one statement for both users
      const [ofA, ofB] = await Promise.all([
        tb.messages.append(A, ids.thread, [{ role: 'user', content: 'a', messageId: 'n' }]),
        tb.messages.append(B, own, [{ role: 'user', content: 'b', messageId: 'n' }]),
      ])
      expect([ofA[0]?.content, ofB[0]?.content]).toEqual(['a', 'b'])
    })

    test('a call without a user is refused', async () => {
      const { tb } = opened
      for (const scope of [undefined, null, {}, { userId: '' }, { userId: 5 }] as never[]) {
        await expect(tb.threads.list(scope)).rejects.toMatchObject({ code: 'invalid_input' })
        await expect(tb.messages.list(scope, ids.thread)).rejects.toMatchObject({ code: 'invalid_input' })
        await expect(tb.configs.get(scope, ids.thread)).rejects.toMatchObject({ code: 'invalid_input' })
        await expect(tb.sessions.list(scope)).rejects.toMatchObject({ code: 'invalid_input' })
        await expect(tb.analyses.findAnalysis(scope, ids.analysed)).rejects.toMatchObject({
          code: 'invalid_input',
        })
        await expect(tb.variables.resolve(scope, 'NAME')).rejects.toMatchObject({ code: 'invalid_input' })
        await expect(tb.credentials.apiKeys.list(scope)).rejects.toMatchObject({ code: 'invalid_input' })
        await expect(tb.artifacts.list(scope, ids.thread)).rejects.toMatchObject({ code: 'invalid_input' })
        await expect(tb.files.create(scope, 'x')).rejects.toMatchObject({ code: 'invalid_input' })
      }
    })
  })
}
