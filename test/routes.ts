import { randomUUID } from 'node:crypto'
import type { Access } from '../src/core/http-shapes.ts'
import { type Account, newAccount, newRows, PROVIDER, type Rows } from './accounts.ts'
import type { Api, Json } from './http.ts'
import { announce } from './uploads.ts'

/** Whose rows a call is about. */
export type Target = { account: Account; rows: Rows }

export type Route = {
  access: Access
  /** What the right caller gets. */
  ok: number
  /** What another user gets with the target's ids: of an admin route nothing, of a list their own empty one. */
  stranger: number
  query?: (target: Target) => string
  body?: (target: Target) => unknown
}

type More = Pick<Route, 'query' | 'body'> & { ok?: number; stranger?: number }

const anyone = (ok: number, more: More = {}): Route => ({ access: 'public', ok, stranger: ok, ...more })
const reads = (more: More = {}): Route => ({ access: 'read', ok: 200, stranger: 404, ...more })
const writes = (ok: number, more: More = {}): Route => ({ access: 'write', ok, stranger: 404, ...more })
const account = (ok: number, more: More = {}): Route => ({ access: 'account', ok, stranger: 404, ...more })
const admin = (ok: number, more: More = {}): Route => ({ access: 'admin', ok, stranger: 403, ...more })

/** For what names nothing of the target: it is about the caller's own. */
const own = { stranger: 200 }
const give = (body: unknown) => ({ body: () => body })

/** Every route of the OpenAPI document: who may call it, and a call that is right in all else. */
export const ROUTES: Record<string, Route> = {
  'GET /health': anyone(200),
  'GET /ready': anyone(200),
  'GET /metrics': { access: 'metrics', ok: 200, stranger: 403 },
  'POST /api/login': anyone(200, {
    body: ({ account: { username, password } }) => ({ username, password }),
  }),
  'POST /api/refresh': anyone(200, {
    body: ({ account: { tokens } }) => ({ refresh_token: tokens.refreshToken }),
  }),
  'POST /api/logout': anyone(204, {
    body: ({ account: { tokens } }) => ({ refresh_token: tokens.refreshToken }),
  }),
  'POST /api/register': anyone(201, {
    body: () => ({ username: `r-${randomUUID()}`, password: 'long enough' }),
  }),
  'GET /api/me': reads(own),
  'PATCH /api/me': account(200, { ...own, ...give({ name: 'me' }) }),
  'POST /api/me/password': account(204, {
    // it is not the stranger's password
    stranger: 401,
    body: ({ account: { password } }) => ({ current_password: password, new_password: 'a new password' }),
  }),
  'GET /api/users/me/export': account(200, own),
  'DELETE /api/users/me': account(200, {
    // it is neither the stranger's name nor password
    stranger: 400,
    body: ({ account: { username, password } }) => ({ confirm: username, password }),
  }),
  'POST /api/threads': writes(200, {
    // the id is free among the stranger's own
    stranger: 201,
    body: ({ rows }) => ({ id: rows.thread, title: rows.title }),
  }),
  'GET /api/threads': reads(own),
  'GET /api/threads/{id}': reads(),
  'PATCH /api/threads/{id}': writes(200, give({ meta: { changed: true } })),
  'DELETE /api/threads/{id}': writes(204, { stranger: 204 }),
  'PATCH /api/threads/{id}/title': writes(200, give({ title: 'changed' })),
  'POST /api/threads/{id}/archive': writes(200),
  'POST /api/threads/{id}/unarchive': writes(200),
  'POST /api/threads/{id}/end': writes(200),
  'POST /api/threads/{id}/fork': writes(201),
  'POST /api/threads/{id}/messages': writes(201, give({ role: 'user', content: 'changed' })),
  'GET /api/threads/{id}/messages': reads({ query: ({ rows }) => `leaf=${rows.message}` }),
  'GET /api/threads/{id}/messages/{message}': reads(),
  'PATCH /api/threads/{id}/messages/{message}': writes(200, give({ meta: { changed: true } })),
  'DELETE /api/threads/{id}/messages/{message}': writes(204, { stranger: 204 }),
  'GET /api/config/defaults': reads(own),
  'GET /api/threads/{id}/config': reads(),
  'PUT /api/threads/{id}/config': writes(200, give({ model: 'changed' })),
  'PATCH /api/threads/{id}/config': writes(200, give({ temperature: 1 })),
  'GET /api/export': reads({ query: ({ rows }) => `thread_id=${rows.thread}` }),
  // of the stranger's own there is none
  'GET /api/search': reads({ ...own, query: () => 'q=content' }),
  'GET /api/conversations': reads(own),
  'POST /api/conversations': writes(200, own),
  // of the stranger's own there is none
  'GET /api/conversations/search': reads({ ...own, query: () => 'q=content' }),
  'GET /api/conversations/{id}': reads(),
  'PATCH /api/conversations/{id}': writes(200, give({ title: 'changed' })),
  'DELETE /api/conversations/{id}': writes(204, { stranger: 204 }),
  'GET /api/conversations/{id}/export/{format}': reads(),
  'POST /api/conversations/{id}/message': writes(200, give({ content: 'changed' })),
  'POST /api/conversations/{id}/message/stream': writes(200, give({ content: 'changed' })),
  'POST /api/sessions': writes(200, {
    // the id is free among the stranger's own
    stranger: 201,
    body: ({ rows }) => ({ id: rows.session, title: rows.title }),
  }),
  'GET /api/sessions': reads(own),
  'GET /api/sessions/{id}': reads(),
  'POST /api/sessions/{id}/end': writes(200),
  'GET /api/sessions/{id}/analysis': reads(),
  // of version 2: it changes nothing
  'PUT /api/sessions/{id}/analysis': writes(200, {
    body: ({ rows }) => ({ summary: rows.summary }),
  }),
  'PATCH /api/sessions/{id}/analysis': writes(200, {
    body: ({ rows }) => ({ summary: rows.summary }),
  }),
  'DELETE /api/sessions/{id}/analysis': writes(204, { stranger: 204 }),
  'GET /api/sessions/{id}/analysis/versions': reads(),
  'GET /api/sessions/{id}/analysis/versions/{version}': reads(),
  'POST /api/threads/{id}/artifacts': writes(201, give('bytes')),
  'GET /api/threads/{id}/artifacts': reads(),
  'POST /api/threads/{id}/artifacts/uploads': writes(201, give(announce('bytes'))),
  'POST /api/threads/{id}/artifacts/uploads/{token}/complete': writes(201),
  'POST /api/threads/{id}/artifacts/ingest': {
    access: 'ingest',
    ok: 201,
    stranger: 404,
    body: ({ rows }) => ({ s3_key: rows.object }),
  },
  'GET /api/artifacts/{id}': reads(),
  'GET /api/artifacts/{id}/head': reads(),
  'GET /api/artifacts/{id}/download': reads({ ok: 307 }),
  'GET /api/artifacts/{id}/content': reads(),
  'DELETE /api/artifacts/{id}': writes(204, { stranger: 204 }),
  'POST /api/files': writes(201, { stranger: 201, ...give('bytes') }),
  'GET /api/files': reads(own),
  'POST /api/files/uploads': writes(201, { stranger: 201, ...give(announce('bytes')) }),
  'POST /api/files/uploads/{token}/complete': writes(201),
  'GET /api/files/{id}': reads(),
  'GET /api/files/{id}/head': reads(),
  'GET /api/files/{id}/download': reads({ ok: 307 }),
  'GET /api/files/{id}/content': reads(),
  'PATCH /api/files/{id}': writes(200, give({ meta: { changed: true } })),
  'DELETE /api/files/{id}': writes(204, { stranger: 204 }),
  // who has such a URL may use it
  'GET /api/blobs/{sha256}': anyone(200, { query: ({ rows }) => rows.getUrl.searchParams.toString() }),
  'PUT /api/blobs/uploads/{name}': anyone(200, {
    query: ({ rows }) => rows.putUrl.searchParams.toString(),
    body: ({ rows }) => rows.content,
  }),
  'POST /api/api-keys': account(201, { stranger: 201, ...give({ name: 'new', scopes: ['admin'] }) }),
  'GET /api/api-keys': reads(own),
  'GET /api/api-keys/{id}': reads(),
  'DELETE /api/api-keys/{id}': account(204, { stranger: 204 }),
  'GET /api/users/me/api-keys': reads(own),
  // of the stranger's own there is none
  'GET /api/users/me/api-keys/{provider}': reads(),
  'PUT /api/users/me/api-keys/{provider}': account(200, { stranger: 201, ...give({ api_key: 'sk-new' }) }),
  'DELETE /api/users/me/api-keys/{provider}': account(204, { stranger: 204 }),
  'POST /api/variables': account(201, {
    stranger: 201,
    body: () => ({ name: `new ${randomUUID()}`, value: 'new' }),
  }),
  'GET /api/variables': reads(own),
  'GET /api/variables/{id}': reads(),
  'PATCH /api/variables/{id}': account(200, give({ value: 'changed' })),
  'DELETE /api/variables/{id}': account(204, { stranger: 204 }),
  'GET /api/admin/users': admin(200),
  'POST /api/admin/users': admin(201, {
    body: () => ({ username: `c-${randomUUID()}`, password: 'long enough', is_superuser: true }),
  }),
  'GET /api/admin/users/{user}': admin(200),
  'PATCH /api/admin/users/{user}': admin(200, give({ is_superuser: true })),
  'POST /api/admin/users/{user}/password': admin(204, give({ password: 'set by somebody' })),
  'GET /api/admin/users/{user}/threads': admin(200),
  'GET /api/admin/users/{user}/threads/{id}': admin(200),
  'GET /api/admin/users/{user}/threads/{id}/messages': admin(200),
  'GET /api/admin/users/{user}/threads/{id}/messages/{message}': admin(200),
  'GET /api/admin/users/{user}/threads/{id}/config': admin(200),
  'GET /api/admin/users/{user}/export': admin(200),
  'GET /api/admin/users/{user}/conversations': admin(200),
  'GET /api/admin/users/{user}/conversations/search': admin(200, { query: () => 'q=content' }),
  'GET /api/admin/users/{user}/search': admin(200, { query: () => 'q=content' }),
  'GET /api/admin/users/{user}/conversations/{id}': admin(200),
  'GET /api/admin/users/{user}/conversations/{id}/export/{format}': admin(200),
  'GET /api/admin/users/{user}/threads/{id}/artifacts': admin(200),
  'GET /api/admin/users/{user}/artifacts/{id}': admin(200),
  'GET /api/admin/users/{user}/artifacts/{id}/head': admin(200),
  'GET /api/admin/users/{user}/artifacts/{id}/download': admin(307),
  'GET /api/admin/users/{user}/artifacts/{id}/content': admin(200),
  'GET /api/admin/users/{user}/files': admin(200),
  'GET /api/admin/users/{user}/files/{id}': admin(200),
  'GET /api/admin/users/{user}/files/{id}/head': admin(200),
  'GET /api/admin/users/{user}/files/{id}/download': admin(307),
  'GET /api/admin/users/{user}/files/{id}/content': admin(200),
  'GET /api/admin/users/{user}/api-keys': admin(200),
  'GET /api/admin/users/{user}/api-keys/{id}': admin(200),
  'GET /api/usage': reads(own),
  'GET /api/usage/totals': reads(own),
  'GET /api/admin/users/{user}/sessions': admin(200),
  'GET /api/admin/users/{user}/sessions/{id}': admin(200),
  'GET /api/admin/users/{user}/sessions/{id}/analysis': admin(200),
  'GET /api/admin/users/{user}/sessions/{id}/analysis/versions': admin(200),
  'GET /api/admin/users/{user}/sessions/{id}/analysis/versions/{version}': admin(200),
  'GET /api/admin/users/{user}/usage': admin(200),
  'GET /api/admin/users/{user}/usage/totals': admin(200),
  'PUT /api/admin/users/{user}/usage': admin(200, give({ tier: 'pro' })),
  'GET /api/admin/audit': admin(200),
}

export const routeNames = Object.keys(ROUTES)
export const protectedNames = routeNames.filter((name) => ROUTES[name]?.access !== 'public')

export function routeOf(name: string): Route {
  const route = ROUTES[name]
  if (route === undefined) throw new Error(`${name} is not in the table`)
  return route
}

/** The routes of an OpenAPI document, by their names in the table. */
export function operationsOf(document: Json): Map<string, Json> {
  const operations = Object.entries<Json>(document.paths).flatMap(([path, item]) =>
    Object.entries<Json>(item).map(
      ([method, operation]) => [`${method.toUpperCase()} ${path}`, operation] as const,
    ),
  )
  return new Map(operations)
}

export async function newTarget({ opened: { tb } }: Api, marker = 'a marker'): Promise<Target> {
  const made = await newAccount(tb)
  return { account: made, rows: await newRows(tb, made.id, marker) }
}

/** What stands in the braces of a path. */
export function valuesFor(path: string, { account, rows }: Target): Record<string, string> {
  const { thread, message, sha256, putUrl } = rows
  const isOf = (part: string) => path.includes(`/${part}/`)
  const ids = {
    'api-keys': rows.key,
    variables: rows.variable,
    artifacts: rows.artifact,
    files: rows.file,
    conversations: rows.conversation,
    sessions: rows.session,
  }
  const [, id] = Object.entries(ids).find(([part]) => isOf(part)) ?? []
  return {
    user: account.id,
    id: isOf('threads') || id === undefined ? thread : id,
    message,
    version: '1',
    format: 'json',
    provider: PROVIDER,
    token: isOf('files') ? rows.fileUpload : rows.artifactUpload,
    sha256,
    name: putUrl.pathname.split('/').at(-1) ?? '',
  }
}

/** What to send to call a route about what is the target's. */
export function requestFor(name: string, target: Target): { method: string; url: string; body: unknown } {
  const { query, body } = routeOf(name)
  const [method = '', path = ''] = name.split(' ')
  const values = valuesFor(path, target)
  const filled = path.replace(/\{(\w+)\}/g, (_, part: string) => String(values[part]))
  return { method, url: query === undefined ? filled : `${filled}?${query(target)}`, body: body?.(target) }
}

/** Calls a route about what is the target's, with these headers. */
export function callRoute(api: Api, name: string, target: Target, headers: Record<string, string> = {}) {
  const { method, url, body } = requestFor(name, target)
  return api.call(method, url, body, headers)
}

/**
 * The routes that an app answers, whether the document has them or not, as `GET /api/threads/{id}`; without HEAD.
 * Read from the tree that the framework prints.
 */
export function servedRoutes(tree: string): string[] {
  const parents: string[] = []
  const served: string[] = []
  for (const line of tree.split('\n')) {
    const match = /^([│ ]*)[├└]── (\S+)(?: \((.+)\))?/.exec(line)
    if (match === null) continue
    const [, indent = '', segment = '', methods = ''] = match
    const depth = indent.length / 4
    const path = (parents[depth - 1] ?? '') + segment
    parents[depth] = path
    const named = path.replace(/:(\w+)/g, '{$1}')
    for (const method of methods.split(', '))
      if (method !== '' && method !== 'HEAD') served.push(`${method} ${named}`)
  }
  return served
}
