import fc from 'fast-check'
import { Compile, type Validator } from 'typebox/compile'
import { afterAll, expect, test } from 'vitest'
import {
  ACCOUNTS,
  type Account,
  bearer,
  type Headers,
  newAccount,
  newRows,
  unsignedTokenOf,
} from '../../test/accounts.ts'
import { councilAt, startCouncilServer } from '../../test/council.ts'
import { type Answer, type Api, describeApi, type Json, MISSING_ID } from '../../test/http.ts'
import { anyRequest, type FuzzRequest, type KnownIds } from '../../test/requests.ts'
import { valuesFor } from '../../test/routes.ts'

const models = await startCouncilServer()
afterAll(() => models.close())

const RUNS = 400
const RUNS_WITH_ACCOUNTS = 2_000

/** Checks what was answered against what the document says of the operation. */
function createOracle() {
  const validators = new Map<Json, Validator>()
  const accepts = (schema: Json, value: unknown): boolean => {
    const validator = validators.get(schema) ?? Compile(schema)
    validators.set(schema, validator)
    return validator.Check(value)
  }
  return (operation: Json, answer: Answer, what: string) => {
    // there is no model here: what is searched by meaning alone is unavailable, and nothing else
    const hasNoModel = /searchMessages$/i.test(operation.operationId) && answer.status === 503
    if (!hasNoModel) expect(answer.status, what).toBeLessThan(500)
    if (answer.status >= 400) return
    const described = operation.responses[answer.status]
    expect(described, what).toBeDefined()
    const schema = described.content?.['application/json']?.schema
    const otherTypes = Object.keys(described.content ?? {}).filter((type) => type !== 'application/json')
    // bytes have their own type
    if (otherTypes.includes('application/octet-stream')) return
    if (otherTypes.length > 0)
      expect(Object.keys(described.content), what).toContain(answer.headers['content-type']?.split(';')[0])
    else if (schema === undefined) expect(answer.text, what).toBe('')
    else expect(accepts(schema, answer.body), what).toBe(true)
  }
}

/** What was made can be asked for. */
function learn(ids: KnownIds, { operationId }: Json, { status, body }: Answer): void {
  if (operationId === 'createConversation' && status === 200) ids.id.push(body.id)
  if (status !== 201) return
  if (operationId === 'appendMessages')
    ids.message.push(...[body.items ?? body].flat().map(({ id }: { id: string }) => id))
  else if (operationId === 'createUser' || operationId === 'registerUser') ids.user.push(body.id)
  else if (/^start(Artifact|File)Upload$/.test(operationId)) ids.token.push(body.token)
  else if (!['putProviderKey', 'replaceAnalysis'].includes(operationId)) ids.id.push(body.id)
}

async function firstIds(api: Api, headers: Headers = {}): Promise<KnownIds> {
  const newThread = async () => (await api.call('POST', '/api/threads', {}, headers)).body.id
  const newConversation = async () => (await api.call('POST', '/api/conversations', {}, headers)).body.id
  const session = (await api.call('POST', '/api/sessions', {}, headers)).body.id
  await api.call('PUT', `/api/sessions/${session}/analysis`, { summary: 'x' }, headers)
  const id = [await newThread(), await newThread(), await newConversation(), session]
  const first = await api.call(
    'POST',
    `/api/threads/${id[0]}/messages`,
    { role: 'user', content: 'x' },
    headers,
  )
  const artifact = await api.call('POST', `/api/threads/${id[0]}/artifacts`, 'bytes', headers)
  return {
    id: [...id, artifact.body.id],
    message: [first.body.id],
    user: ['nobody'],
    provider: ['openai', 'anthropic'],
    token: [MISSING_ID],
    sha256: [artifact.body.sha256],
    name: [MISSING_ID],
    format: ['json', 'markdown'],
    version: ['1', '2'],
  }
}

const errorsOf = ({ logged }: Api) => logged.filter(({ level }) => level >= 50)

describeApi(
  'requests made from the OpenAPI document',
  (api) => {
    test('are answered as the document says, or refused: never a 5xx', async () => {
      const { paths } = (await api.call('GET', '/openapi.json')).body
      // what needs an account is refused here, and tried with accounts below
      const ofAccounts = /^\/api\/(admin|api-keys|login|logout|me|refresh|register)\b/
      const document = {
        paths: Object.fromEntries(Object.entries(paths).filter(([path]) => !ofAccounts.test(path))),
      }
      const check = createOracle()
      const ids = await firstIds(api)
      const statuses = new Map<number, number>()
      await fc.assert(
        fc.asyncProperty(anyRequest(document), async (request) => {
          const { method, body, headers, operation } = request
          const url = request.url(ids)
          // checks the shape of every refusal
          const answer = await api.call(method, url, body, headers)
          statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1)
          check(operation, answer, `${method} ${url} ${body} → ${answer.status} ${answer.text}`)
          learn(ids, operation, answer)
        }),
        { numRuns: RUNS, endOnFailure: true },
      )
      // it did reach what it was made for
      for (const status of [200, 201, 204, 400, 404])
        expect(statuses.get(status) ?? 0, `${status}`).toBeGreaterThan(2)
      expect(errorsOf(api)).toEqual([])
    })
  },
  { council: councilAt(models) },
)

type Caller = {
  headers(): Headers
  /** Whether the access of an operation is for this caller. */
  may(access: string): boolean
}

describeApi(
  'requests made from the OpenAPI document, with accounts',
  (api) => {
    test('are answered as the document says, or refused, and never more than the credential allows', async () => {
      const document = (await api.call('GET', '/openapi.json')).body
      const check = createOracle()
      const { callers, spare } = await openCallers(api)
      const ids = await firstIds(api, callers.user?.headers())
      for (let n = 0; n < 3; n++) ids.user.push((await newAccount(api.opened.tb)).id)
      const seen = new Set<string>()
      const statuses = new Map<number, number>()
      const anyCall = fc.record({
        request: anyRequest(document),
        caller: fc.oneof(
          { weight: 3, arbitrary: fc.constantFrom('superuser', 'user') },
          { weight: 1, arbitrary: fc.constantFrom(...Object.keys(callers)) },
        ),
        known: fc.oneof(
          { weight: 3, arbitrary: fc.constant(true) },
          { weight: 1, arbitrary: fc.constant(false) },
        ),
      })
      await fc.assert(
        fc.asyncProperty(anyCall, async ({ request, caller, known }) => {
          const { method, operation } = request
          const { headers, may } = callers[caller] as Caller
          const url = request.url(known ? spare.idsFor(request, ids) : ids)
          const body = known ? ((await spare.bodyFor(request)) ?? request.body) : request.body
          const answer = await api.call(method, url, body, { ...headers(), ...request.headers })
          const { operationId, 'x-access': access } = operation
          const what = `${caller}: ${method} ${url} ${body} → ${answer.status} ${answer.text}`
          check(operation, answer, what)
          if (!may(access)) expect([401, 403], what).toContain(answer.status)
          if (answer.status === 401) expect(answer.headers['www-authenticate'], what).toMatch(/^Bearer/)
          learn(ids, operation, answer)
          if (known && method === 'DELETE') await spare.renewRows()
          if (operationId === 'logOut' && answer.status === 204) await spare.renewSessions()
          if (answer.status < 400) seen.add(operationId)
          statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1)
        }),
        { numRuns: RUNS_WITH_ACCOUNTS, endOnFailure: true },
      )
      // it did reach what it was made for; which few operations chance leaves out is another one each time
      const operations = Object.values<Json>(document.paths).flatMap((item) => Object.values<Json>(item))
      expect(seen.size).toBeGreaterThan(operations.length * 0.75)
      for (const status of [200, 201, 204, 400, 401, 403, 404])
        expect(statuses.get(status) ?? 0, `${status}`).toBeGreaterThan(2)
      expect(errorsOf(api)).toEqual([])
    }, 120_000)
  },
  { auth: ACCOUNTS, council: councilAt(models) },
)

/** Everybody who may call, and what a caller needs to know to sign in. */
async function openCallers(api: Api) {
  const { tb } = api.opened
  const accounts = { superuser: await newAccount(tb, { isSuperuser: true }), user: await newAccount(tb) }
  const spare = await newAccount(tb)
  const renew = async (account: Account) => {
    const { tokens } = await tb.identity.signIn.signIn(
      { login: account.username, password: account.password },
      {},
    )
    account.headers = bearer(tokens.accessToken)
  }
  const keyed = async (account: Account, scopes: string[], ...allowed: string[]): Promise<Caller> => {
    const headers = { 'x-api-key': await account.key(scopes) }
    return { headers: () => headers, may: (access) => access === 'public' || allowed.includes(access) }
  }
  const broken = (headers: Headers): Caller => ({
    headers: () => headers,
    may: (access) => access === 'public',
  })
  const { superuser, user } = accounts
  const callers: Record<string, Caller> = {
    superuser: { headers: () => superuser.headers, may: () => true },
    user: { headers: () => user.headers, may: (access) => access !== 'admin' && access !== 'metrics' },
    reader: await keyed(user, ['read'], 'read'),
    writer: await keyed(user, ['write'], 'write'),
    keeper: await keyed(user, ['admin', 'read', 'write'], 'read', 'write', 'account'),
    flow: await keyed(user, ['flow:x', 'ingest'], 'ingest'),
    administrator: await keyed(superuser, ['admin'], 'account', 'admin', 'metrics'),
    'reader of a superuser': await keyed(superuser, ['read'], 'read'),
    nobody: broken({}),
    garbage: broken(bearer('garbage')),
    unsigned: broken(bearer(unsignedTokenOf(superuser))),
    refresh: broken(bearer(superuser.tokens.refreshToken)),
    'key of nobody': broken({ 'x-api-key': `tb_${'A'.repeat(43)}` }),
  }
  const { username, password } = spare
  let rows = await newRows(tb, user.id, 'known')
  const signIn = () => tb.identity.signIn.signIn({ login: username, password }, {})
  return {
    callers,
    spare: {
      /** A body that is right for an operation that asks for a secret. */
      bodyFor: async ({ operation: { operationId } }: FuzzRequest): Promise<string | undefined> => {
        if (operationId === 'ingestArtifact') return JSON.stringify({ s3_key: rows.object })
        if (operationId === 'logIn') return JSON.stringify({ username, password })
        if (operationId !== 'refreshSession' && operationId !== 'logOut') return undefined
        return JSON.stringify({ refresh_token: (await signIn()).tokens.refreshToken })
      },
      /** Ids that belong together, and to the caller `user`. A change of users is about others, lest that one be locked out. */
      idsFor: ({ method, url }: FuzzRequest, ids: KnownIds): KnownIds => {
        const none = {
          id: ['-'],
          message: ['-'],
          user: ['-'],
          provider: ['-'],
          token: ['-'],
          sha256: ['-'],
          name: ['-'],
          format: ['-'],
          version: ['-'],
        }
        const target = { account: user, rows }
        const known = Object.entries(valuesFor(url(none), target)).map(([name, value]) => [name, [value]])
        return { ...Object.fromEntries(known), ...(method === 'GET' ? {} : { user: ids.user }) }
      },
      renewRows: async () => {
        // a user may have so many
        await tb.identity.keys.revoke({ userId: user.id }, { userId: 'tests', via: 'library' }, rows.key)
        rows = await newRows(tb, user.id, 'known')
      },
      renewSessions: async () => {
        for (const account of Object.values(accounts)) await renew(account)
      },
    },
  }
}
