import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { expect } from 'vitest'
import { type Answer, type Api, idsOf as ids, type Json, orMissing } from './http.ts'
import { sha256Of } from './uploads.ts'
import { compareSecrets, PROVIDERS, secretActs, type Variable } from './world-secrets.ts'

/** Whose thing a call names, and which of theirs: each modulo what there is. */
type Pick = { of: number; at: number }

/** One call of one user, about things of any user. */
export type Step = { by: number; act: Act; thing: Pick; other: Pick; flag: boolean }
export type Act = keyof typeof acts

type Message = { id: string; content: string; meta: Json }
type Thread = {
  id: string
  title: string
  meta: Json
  archived: boolean
  messages: Message[]
  artifacts: Bytes[]
  model: string | null
  temperature: number | null
}
/** Of an artifact or a file. */
type Bytes = { id: string; text: string }
type Key = { id: string; key: string; revoked: boolean }

/** What a user has, told in the simplest way. `marker` is in every text of theirs, and in nothing else. */
export type World = {
  userId: string
  marker: string
  rootKey: string
  threads: Thread[]
  /** The first one stays. */
  files: Bytes[]
  keys: Key[]
  /** By provider. */
  providerKeys: Map<string, string>
  variables: Variable[]
  cursors: string[]
  texts: number
}

/** A user with an API key that may do everything. */
export async function openWorld({ opened: { tb } }: Api, userId: string): Promise<World> {
  const marker = `<${randomUUID()}>`
  await tb.identity.users.ensure({ id: userId, provider: 'jwt', name: `name ${marker}` })
  const scopes = ['read', 'write', 'admin', 'ingest']
  const by = { userId, via: 'library' } as const
  const made = await tb.identity.keys.create({ userId }, by, { name: `root ${marker}`, scopes })
  const text = `kept by ${marker}`
  const kept = { id: (await tb.files.create({ userId }, text)).id, text }
  const keys = [{ id: made.apiKey.id, key: made.key, revoked: false }]
  const secrets = { providerKeys: new Map(), variables: [] }
  const own = { threads: [], files: [kept], keys, ...secrets }
  return { userId, marker, rootKey: made.key, ...own, cursors: [], texts: 0 }
}

type Call = (method: string, url: string, body?: unknown, key?: string) => Promise<Answer>

export type Context = {
  world: World
  call: Call
  /** The id of a thread of anybody's, and that thread if it is the caller's. */
  threadId: string
  thread: Thread | undefined
  /** The id of a message of anybody's, and that message if it is in `thread`. */
  messageId: string
  message: Message | undefined
  /** An artifact or a file of anybody's: those of the thread, or the owner's files. */
  bytesId: string
  apiKey: Key | undefined
  provider: string
  /** The id of a variable of anybody's, and that variable if it is the caller's. */
  variableId: string
  variable: Variable | undefined
  owner: World
  cursor: string | undefined
  flag: boolean
  /** A new text of the caller's. */
  text(): string
}

const liveOf = ({ keys }: World) => keys.filter(({ revoked }) => !revoked)

/** Each act makes one call, checks its answer against the caller's world, and changes that world alone. */
const acts = {
  async create({ world, call, text, thread, threadId, flag }: Context) {
    // half of them with an id that somebody else may have, which is none of the caller's business
    const body = { title: text(), meta: { at: text() }, ...(flag ? { id: threadId } : {}) }
    const { status, body: made } = await call('POST', '/api/threads', body)
    expect(status).toBe(flag && thread !== undefined ? 409 : 201)
    if (status !== 201) return
    const { title, meta } = body
    world.threads.push({
      id: made.id,
      title,
      meta,
      archived: false,
      messages: [],
      artifacts: [],
      model: null,
      temperature: null,
    })
  },
  async list({ world, call, flag }: Context) {
    const { body } = await call('GET', `/api/threads?limit=100&include_archived=${flag}`)
    expect(ids(body.items)).toEqual(ids(world.threads.filter(({ archived }) => flag || !archived)))
  },
  async search({ world, call, owner, flag }: Context) {
    const q = flag ? owner.marker : '<'
    const { body } = await call(
      'GET',
      `/api/threads?limit=100&include_archived=true&q=${encodeURIComponent(q)}`,
    )
    expect(ids(body.items)).toEqual(flag && owner !== world ? [] : ids(world.threads))
  },
  async read({ call, threadId, thread }: Context) {
    const { status, body } = await call('GET', `/api/threads/${threadId}`)
    expect(status).toBe(orMissing(200, thread))
    if (thread !== undefined) expect([body.title, body.meta]).toEqual([thread.title, thread.meta])
  },
  async change({ call, text, threadId, thread, flag }: Context) {
    const patch = flag ? { title: text() } : { meta: { more: text() } }
    const { status } = await call('PATCH', `/api/threads/${threadId}`, patch)
    expect(status).toBe(orMissing(200, thread))
    if (thread === undefined) return
    if (patch.title !== undefined) thread.title = patch.title
    thread.meta = { ...thread.meta, ...patch.meta }
  },
  async archive({ call, threadId, thread, flag }: Context) {
    const { status } = await call('POST', `/api/threads/${threadId}/${flag ? 'archive' : 'unarchive'}`)
    expect(status).toBe(orMissing(200, thread))
    if (thread !== undefined) thread.archived = flag
  },
  async delete({ world, call, threadId, thread }: Context) {
    expect((await call('DELETE', `/api/threads/${threadId}`)).status).toBe(204)
    world.threads = world.threads.filter((other) => other !== thread)
  },
  async fork({ world, call, threadId, thread }: Context) {
    const { status, body } = await call('POST', `/api/threads/${threadId}/fork`, {})
    expect(status).toBe(orMissing(201, thread))
    if (thread === undefined) return
    const copies = await call('GET', `/api/threads/${body.id}/messages?limit=200`)
    const contents = thread.messages.map(({ content }) => content)
    expect(copies.body.items.map(({ content }: Json) => content)).toEqual(contents)
    const messages = copies.body.items.map(({ id, content, meta }: Json) => ({ id, content, meta }))
    world.threads.push({
      ...thread,
      id: body.id,
      title: body.title,
      meta: body.meta,
      archived: false,
      messages,
      artifacts: [],
    })
  },
  async append({ call, text, threadId, thread, messageId, message, flag }: Context) {
    // with a parent that may be a message of anybody's
    const body = { role: 'user', content: text(), ...(flag ? { parent_id: messageId } : {}) }
    const { status, body: made } = await call('POST', `/api/threads/${threadId}/messages`, body)
    expect(status).toBe(flag && thread !== undefined && message === undefined ? 400 : orMissing(201, thread))
    if (status === 201) thread?.messages.push({ id: made.id, content: body.content, meta: {} })
  },
  async 'list messages'({ call, threadId, thread }: Context) {
    const { status, body } = await call('GET', `/api/threads/${threadId}/messages?limit=200`)
    expect(status).toBe(orMissing(200, thread))
    if (thread === undefined) return
    expect(body.items.map(({ id, content }: Json) => [id, content])).toEqual(
      thread.messages.map(({ id, content }) => [id, content]),
    )
  },
  async 'list path'({ call, threadId, thread, messageId, message }: Context) {
    const { status, body } = await call('GET', `/api/threads/${threadId}/messages?leaf=${messageId}`)
    expect(status).toBe(orMissing(200, message))
    if (message === undefined) return
    const known = new Set(thread?.messages.map(({ id }) => id))
    expect(body.items.every(({ id }: Json) => known.has(id))).toBe(true)
  },
  async 'read message'({ call, threadId, messageId, message }: Context) {
    const { status, body } = await call('GET', `/api/threads/${threadId}/messages/${messageId}`)
    expect(status).toBe(orMissing(200, message))
    if (message !== undefined) expect(body.content).toBe(message.content)
  },
  async 'change message'({ call, text, threadId, messageId, message }: Context) {
    const meta = { noted: text() }
    const { status } = await call('PATCH', `/api/threads/${threadId}/messages/${messageId}`, { meta })
    expect(status).toBe(orMissing(200, message))
    if (message !== undefined) message.meta = meta
  },
  async 'delete message'({ call, threadId, thread, messageId, message }: Context) {
    const { status } = await call('DELETE', `/api/threads/${threadId}/messages/${messageId}`)
    expect(status).toBe(204)
    if (thread !== undefined) thread.messages = thread.messages.filter((other) => other !== message)
  },
  async 'read config'({ call, threadId, thread }: Context) {
    const { status, body } = await call('GET', `/api/threads/${threadId}/config`)
    expect(status).toBe(orMissing(200, thread))
    if (thread !== undefined)
      expect([body.model, body.temperature]).toEqual([thread.model, thread.temperature])
  },
  async 'change config'({ call, text, threadId, thread, flag }: Context) {
    const [method, values] = flag
      ? ['PUT', { model: text(), temperature: null }]
      : ['PATCH', { temperature: 1.5 }]
    const { status } = await call(String(method), `/api/threads/${threadId}/config`, values)
    expect(status).toBe(orMissing(200, thread))
    if (thread !== undefined) Object.assign(thread, values)
  },
  async export({ world, call, threadId, thread, flag }: Context) {
    const query = flag ? `?thread_id=${threadId}` : ''
    const { status, text } = await call('GET', `/api/export${query}`)
    expect(status).toBe(flag ? orMissing(200, thread) : 200)
    if (!flag) expect(text.split('\n').filter((line) => line !== '')).toHaveLength(world.threads.length)
  },
  async 'add artifact'({ call, text, threadId, thread }: Context) {
    const bytes = text()
    const { status, body } = await call('POST', `/api/threads/${threadId}/artifacts`, bytes)
    expect(status).toBe(orMissing(201, thread))
    if (status === 201) thread?.artifacts.push({ id: body.id, text: bytes })
  },
  async 'list artifacts'({ call, threadId, thread }: Context) {
    const { status, body } = await call('GET', `/api/threads/${threadId}/artifacts?limit=200`)
    expect(status).toBe(orMissing(200, thread))
    if (thread !== undefined) expect(ids(body.items)).toEqual(ids(thread.artifacts))
  },
  async 'ingest what is stored'({ call, owner, thread, threadId, world }: Context) {
    // by a hash that the caller may have heard of
    const { text } = owner.files[0] as Bytes
    const sha256 = sha256Of(text)
    const s3_key = `output/artifacts/${sha256.slice(0, 2)}/${sha256.slice(2, 4)}/${sha256}`
    const { status, body } = await call('POST', `/api/threads/${threadId}/artifacts/ingest`, { s3_key })
    expect(status).toBe(owner === world ? orMissing(201, thread) : 404)
    if (status === 201) thread?.artifacts.push({ id: body.id, text })
  },
  async 'read artifact'({ world, call, bytesId }: Context) {
    const own = world.threads.flatMap(({ artifacts }) => artifacts).find(({ id }) => id === bytesId)
    for (const part of ['', '/head', '/content']) {
      const { status, text } = await call('GET', `/api/artifacts/${bytesId}${part}`)
      expect(status).toBe(orMissing(200, own))
      if (own !== undefined && part === '/content') expect(text).toBe(own.text)
    }
    expect((await call('GET', `/api/artifacts/${bytesId}/download`)).status).toBe(orMissing(307, own))
  },
  async 'delete artifact'({ world, call, bytesId }: Context) {
    expect((await call('DELETE', `/api/artifacts/${bytesId}`)).status).toBe(204)
    for (const thread of world.threads) thread.artifacts = thread.artifacts.filter(({ id }) => id !== bytesId)
  },
  async 'add file'({ world, call, text }: Context) {
    const bytes = text()
    const { status, body } = await call('POST', '/api/files?filename=same', bytes)
    expect(status).toBe(201)
    world.files.push({ id: body.id, text: bytes })
  },
  async 'list files'({ world, call }: Context) {
    const { body } = await call('GET', '/api/files?limit=200')
    expect(ids(body.items)).toEqual(ids(world.files))
    const names = body.items.map(({ name }: Json) => name)
    expect(new Set(names).size).toBe(names.length)
  },
  async 'read file'({ world, call, bytesId }: Context) {
    const own = world.files.find(({ id }) => id === bytesId)
    const { status, text } = await call('GET', `/api/files/${bytesId}/content`)
    expect(status).toBe(orMissing(200, own))
    if (own !== undefined) expect(text).toBe(own.text)
    expect((await call('GET', `/api/files/${bytesId}/download`)).status).toBe(orMissing(307, own))
  },
  async 'change file'({ world, call, bytesId, text, flag }: Context) {
    const own = world.files.find(({ id }) => id === bytesId)
    const patch = flag ? { name: 'same' } : { meta: { noted: text() } }
    const { status } = await call('PATCH', `/api/files/${bytesId}`, patch)
    expect(status).toBe(orMissing(200, own))
  },
  async 'delete file'({ world, owner, call, bytesId }: Context) {
    if (bytesId === owner.files[0]?.id) return
    expect((await call('DELETE', `/api/files/${bytesId}`)).status).toBe(204)
    world.files = world.files.filter(({ id }) => id !== bytesId)
  },
  async 'make key'({ world, call, text }: Context) {
    const { status, body } = await call('POST', '/api/api-keys', { name: text(), scopes: ['read'] })
    expect(status).toBe(201)
    world.keys.push({ id: body.id, key: body.api_key, revoked: false })
  },
  async 'list keys'({ world, call, flag }: Context) {
    const { body } = await call('GET', `/api/api-keys?limit=200&include_revoked=${flag}`)
    expect(ids(body.items)).toEqual(ids(flag ? world.keys : liveOf(world)))
  },
  async 'read key'({ world, owner, call, apiKey }: Context) {
    const { status } = await call('GET', `/api/api-keys/${apiKey?.id}`)
    expect(status).toBe(owner === world ? 200 : 404)
  },
  async 'revoke key'({ world, owner, call, apiKey }: Context) {
    if (apiKey === undefined || apiKey.key === owner.rootKey) return
    expect((await call('DELETE', `/api/api-keys/${apiKey.id}`)).status).toBe(204)
    if (owner === world) apiKey.revoked = true
  },
  async 'call with a key'({ world, call }: Context) {
    for (const { key, revoked } of world.keys.slice(-3)) {
      const { status, body } = await call(
        'GET',
        '/api/threads?limit=100&include_archived=true',
        undefined,
        key,
      )
      expect(status).toBe(revoked ? 401 : 200)
      if (!revoked) expect(ids(body.items)).toEqual(ids(world.threads))
    }
  },
  ...secretActs,
  async 'page on'({ world, call, threadId, cursor, flag }: Context) {
    const places = [
      '/api/threads?limit=1',
      `/api/threads/${threadId}/messages?limit=1`,
      '/api/api-keys?limit=1',
      '/api/variables?limit=1',
    ]
    for (const place of places) {
      const { status, body } = await call(
        'GET',
        flag || cursor === undefined ? place : `${place}&cursor=${cursor}`,
      )
      // of another list, or of a thread that is not the caller's
      expect([200, 400, 404]).toContain(status)
      if (status === 200 && body.next_cursor !== null) world.cursors.push(body.next_cursor)
    }
  },
  async me({ world, call }: Context) {
    const { body } = await call('GET', '/api/me')
    expect([body.user_id, body.user.name]).toEqual([world.userId, `name ${world.marker}`])
  },
} satisfies Record<string, (context: Context) => Promise<void>>

const pick: fc.Arbitrary<Pick> = fc.record({ of: fc.nat(4), at: fc.nat(5) })

export const anyStep: fc.Arbitrary<Step> = fc.record({
  by: fc.nat(4),
  // first what makes things: a failure shrinks to it
  act: fc.oneof(
    {
      weight: 1,
      arbitrary: fc.constantFrom<Act>(
        'create',
        'append',
        'add artifact',
        'add file',
        'make key',
        'make variable',
      ),
    },
    { weight: 2, arbitrary: fc.constantFrom(...(Object.keys(acts) as Act[])) },
  ),
  thing: pick,
  other: pick,
  flag: fc.boolean(),
})

const at = <T>(items: readonly T[], index: number): T | undefined =>
  items.length === 0 ? undefined : items[index % items.length]

/** Lets a user make one call. Everything that comes back must be free of all others' markers. */
export async function take(api: Api, worlds: World[], { by, act, thing, other, flag }: Step): Promise<void> {
  const world = at(worlds, by) as World
  const owner = at(worlds, thing.of) as World
  const threadId = at(owner.threads, thing.at)?.id ?? randomUUID()
  const thread = world.threads.find(({ id }) => id === threadId)
  const messages = (at(worlds, other.of) as World).threads.flatMap((one) => one.messages)
  // rather one of the thread that is named
  const messageId = (at(thread?.messages ?? [], other.at) ?? at(messages, other.at))?.id ?? randomUUID()
  const artifacts = owner.threads.flatMap((one) => one.artifacts)
  const variableId = at(owner.variables, other.at)?.id ?? randomUUID()
  await acts[act]({
    world,
    provider: String(at(PROVIDERS, other.at)),
    variableId,
    variable: world.variables.find(({ id }) => id === variableId),
    call: caller(api, worlds, world),
    threadId,
    thread,
    messageId,
    message: thread?.messages.find(({ id }) => id === messageId),
    bytesId: at(act.includes('file') ? owner.files : artifacts, other.at)?.id ?? randomUUID(),
    apiKey: at(owner.keys, other.at),
    owner,
    cursor: at((at(worlds, other.of) as World).cursors, other.at),
    flag,
    text: () => `text ${world.texts++} of ${world.marker}`,
  })
}

function caller(api: Api, worlds: World[], world: World): Call {
  const others = worlds.filter((other) => other !== world)
  return async (method, url, body, key = world.rootKey) => {
    const answer = await api.call(method, url, body, { 'x-api-key': key })
    const all = JSON.stringify([answer.headers, answer.text])
    const what = `${world.userId}: ${method} ${url} → ${answer.status} ${answer.text}`
    for (const { marker } of others) expect(all.includes(marker), what).toBe(false)
    expect(answer.status, what).toBeLessThan(500)
    return answer
  }
}

async function readArtifacts(call: Call, thread: string): Promise<Bytes[]> {
  const { body } = await call('GET', `/api/threads/${thread}/artifacts?limit=200`)
  const read = body.items.map(async ({ id }: Json) => {
    return { id, text: (await call('GET', `/api/artifacts/${id}/content`)).text }
  })
  // newest first
  return (await Promise.all(read)).reverse()
}

/** At the end: everything that the user has, and nothing else. */
export async function compare(api: Api, worlds: World[], world: World): Promise<void> {
  const call = caller(api, worlds, world)
  const listed = await call('GET', '/api/threads?limit=100&include_archived=true')
  const found = new Map(listed.body.items.map((thread: Json) => [thread.id, thread]))
  expect(ids(listed.body.items)).toEqual(ids(world.threads))
  for (const thread of world.threads) {
    const { user_id, title, meta, archived_at } = found.get(thread.id) as Json
    const config = (await call('GET', `/api/threads/${thread.id}/config`)).body
    const messages = (await call('GET', `/api/threads/${thread.id}/messages?limit=200`)).body.items
    expect({
      userId: user_id,
      id: thread.id,
      title,
      meta,
      archived: archived_at !== null,
      messages: messages.map(({ id, content, meta }: Json) => ({ id, content, meta })),
      artifacts: await readArtifacts(call, thread.id),
      model: config.model,
      temperature: config.temperature,
    }).toEqual({ userId: world.userId, ...thread })
  }
  const files = await call('GET', '/api/files?limit=200')
  expect(ids(files.body.items)).toEqual(ids(world.files))
  const keys = await call('GET', '/api/api-keys?limit=200')
  expect(ids(keys.body.items)).toEqual(ids(liveOf(world)))
  await compareSecrets(api, world)
}
