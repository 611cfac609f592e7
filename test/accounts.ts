import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import type { AuthSettings } from '../src/identity/service.ts'
import { createTokenSigner } from '../src/identity/tokens.ts'
import type { Threadbase } from '../src/threadbase.ts'
import { TEST_AUTH, type TestDatabase } from './harness.ts'
import type { Api } from './http.ts'
import { announce, putUpload } from './uploads.ts'

/** Mode `accounts` in which nothing is refused for being tried too often. */
export const ACCOUNTS: AuthSettings = {
  ...TEST_AUTH,
  mode: 'accounts',
  registration: true,
  loginLimits: { perUser: 1_000_000, perAddress: 1_000_000 },
}

const SECRETS = TEST_AUTH.secrets ?? []
const BY = { userId: 'tests', via: 'library' } as const

/** Of the key that {@link newRows} stores. */
export const PROVIDER = 'openai'

export type Headers = Record<string, string>

export const bearer = (token: string): Headers => ({ authorization: `Bearer ${token}` })

export type Account = Awaited<ReturnType<typeof newAccount>>

/** A user who has just signed in. */
export async function newAccount(tb: Threadbase, { isSuperuser = false } = {}) {
  const username = `u-${randomUUID()}`
  const password = `password of ${username}`
  const { id } = await tb.identity.users.create(BY, { username, password, isSuperuser })
  const { tokens } = await tb.identity.signIn.signIn({ login: username, password }, {})
  return {
    id,
    username,
    password,
    tokens,
    headers: bearer(tokens.accessToken),
    /** A new API key. */
    key: async (scopes: string[]) =>
      (await tb.identity.keys.create({ userId: id }, BY, { name: 'k', scopes })).key,
    deactivate: () => tb.identity.users.update(BY, id, { isActive: false }),
  }
}

export type Rows = {
  thread: string
  title: string
  message: string
  key: string
  variable: string
  conversation: string
  session: string
  summary: string
} & Bytes

/**
 * A thread with a message, a config and an artifact, a conversation with a question, a session with an analysis that was
 * changed once, a file, an API key that is never used,
 * a key for a provider and a variable. `marker` is in every text.
 */
export async function newRows(tb: Threadbase, userId: string, marker: string) {
  const { threads, messages, configs, conversations, identity, credentials, variables } = tb
  const scope = { userId }
  const title = `title ${marker}`
  const { id: thread } = await threads.create(scope, { id: randomUUID(), title })
  const [message] = await messages.append(scope, thread, [{ role: 'user', content: `content ${marker}` }])
  await configs.put(scope, thread, { model: `model ${marker}` })
  const { id: conversation } = await conversations.createConversation(scope)
  await conversations.addUserMessage(scope, conversation, `content ${marker}`)
  const session = await newSession(tb, userId, marker, title)
  const { apiKey } = await identity.keys.create(scope, BY, { name: `key ${marker}` })
  await credentials.apiKeys.put(scope, BY, PROVIDER, { apiKey: `sk-${marker}` })
  const named = { name: `variable ${randomUUID()} ${marker}`, value: `value ${marker}` }
  const { id: variable } = await variables.create(scope, BY, { ...named, type: 'generic' })
  const ids = { thread, message: String(message?.id), key: apiKey.id, variable, conversation, ...session }
  const bytes = await newBytes(tb, userId, thread, marker)
  return { ...ids, ...bytes, title } satisfies Rows
}

/** A session with an analysis that is at version 2. */
export async function newSession(
  { sessions, analyses }: Threadbase,
  userId: string,
  marker: string,
  title: string,
) {
  const scope = { userId }
  const summary = `summary ${marker}`
  const { id: session } = await sessions.create(scope, { id: randomUUID(), title })
  await analyses.put(scope, session, { summary: `first ${marker}` })
  await analyses.put(scope, session, { summary }, { ifVersion: 1 })
  return { session, summary }
}

export type Bytes = Awaited<ReturnType<typeof newBytes>>

/** An artifact and a file, and uploads: one of each that waits for its completion, and one that waits for its bytes. */
export async function newBytes(
  { artifacts, files, blobs }: Threadbase,
  userId: string,
  thread: string,
  marker: string,
) {
  const scope = { userId }
  const content = `bytes ${marker} ${randomUUID()}`
  const facts = announce(content)
  const named = { filename: `name ${marker}`, meta: { marker } }
  const artifact = await artifacts.create(scope, thread, content, named)
  const file = await files.create(scope, content, named)
  const ofArtifact = await artifacts.startUpload(scope, thread, { ...named, ...facts })
  const ofFile = await files.startUpload(scope, { ...named, ...facts })
  for (const upload of [ofArtifact, ofFile]) await putUpload(blobs, upload, content)
  const open = await files.startUpload(scope, { ...named, ...facts })
  return {
    content,
    ...facts,
    artifact: artifact.id,
    file: file.id,
    /** Where the bytes are in the storage. */
    object: blobs.locate(artifact.sha256).key,
    artifactUpload: ofArtifact.token,
    fileUpload: ofFile.token,
    /** Paths of this server that were presigned. */
    getUrl: new URL(await artifacts.presign(scope, artifact.id), 'http://localhost'),
    putUrl: new URL(open.url, 'http://localhost'),
  }
}

/** Everything that is stored of a user, but for when keys were used. */
export async function everythingOf({ database, tb }: TestDatabase, userId: string) {
  const scope = { userId }
  const threads = (await tb.threads.list(scope, { includeArchived: true, limit: 100 })).items
  const rows = await Promise.all(
    threads.map(async ({ id, kind }) => ({
      messages: (await tb.messages.list(scope, id)).items,
      config: await tb.configs.get(scope, id),
      artifacts: (await tb.artifacts.list(scope, id)).items,
      analysis: kind === 'chain_analysis' ? await tb.analyses.findAnalysis(scope, id) : undefined,
    })),
  )
  const conversations = await tb.conversations.listConversations(scope)
  const files = (await tb.files.list(scope)).items
  const keys = (await tb.identity.keys.list(scope, { includeRevoked: true })).items
  const sessions =
    await sql`select * from ${sql.table(`${database.schema}.sessions`)} where user_id = ${userId}
    order by id`.execute(database.db)
  const user = await tb.identity.users.getUser(userId)
  const providerKeys = (await tb.credentials.apiKeys.list(scope)).items
  const variables = (await tb.variables.list(scope)).items
  return {
    user,
    threads,
    rows,
    conversations,
    files,
    keys: keys.map(({ lastUsedAt: _, totalUses: __, ...key }) => key),
    sessions: sessions.rows,
    providerKeys,
    variables,
  }
}

/** A token of a session that lives, which alone has expired. */
export function expiredTokenOf({ id, tokens }: Account): Promise<string> {
  return signerWith({ accessTtlS: -5 }).signAccess(id, tokens.sessionId)
}

/** A token of a session that lives, signed with a secret that is not the server's. */
export function forgedTokenOf({ id, tokens }: Account): Promise<string> {
  return signerWith({ secrets: ['not-the-secret-not-the-secret-not-the-secret'] }).signAccess(
    id,
    tokens.sessionId,
  )
}

function signerWith(over: Partial<Parameters<typeof createTokenSigner>[0]>) {
  return createTokenSigner({ secrets: SECRETS, accessTtlS: 60, refreshTtlS: 60, ...over })
}

/** The same claims without a signature, as `alg: none` says. */
export function unsignedTokenOf({ tokens }: Account): string {
  const header = Buffer.from(JSON.stringify({ alg: 'none', typ: 'at+jwt' })).toString('base64url')
  return `${header}.${tokens.accessToken.split('.')[1]}.`
}

/** A token whose payload names somebody else, under the signature of its own. */
export function alteredTokenOf({ tokens }: Account, userId: string): string {
  const [header, payload = '', signature] = tokens.accessToken.split('.')
  const claims = { ...JSON.parse(Buffer.from(payload, 'base64url').toString()), sub: userId }
  return [header, Buffer.from(JSON.stringify(claims)).toString('base64url'), signature].join('.')
}

/** A key that was good until a moment ago. */
export async function expiredKeyOf({ database }: TestDatabase, account: Account): Promise<string> {
  const key = await account.key(['read', 'write', 'admin', 'ingest'])
  await sql`update ${sql.table(`${database.schema}.api_keys`)} set expires_at = now() - interval '1 second'
    where user_id = ${account.id} and prefix = ${key.slice(0, 11)}`.execute(database.db)
  return key
}

/** A key that worked until it was revoked over HTTP. */
export async function revokedKeyOf(api: Api, account: Account): Promise<string> {
  const made = await api.call(
    'POST',
    '/api/api-keys',
    { name: 'short', scopes: ['read', 'write', 'admin'] },
    account.headers,
  )
  const headers = bearer(made.body.api_key)
  const used = await api.call('GET', '/api/threads', undefined, headers)
  const revoked = await api.call('DELETE', `/api/api-keys/${made.body.id}`, undefined, account.headers)
  if (made.status !== 201 || used.status !== 200 || revoked.status !== 204)
    throw new Error('the key was not good')
  return made.body.api_key
}
