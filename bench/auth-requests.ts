import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { openThreadbase } from '../src/index.ts'
import { median, ms, type Row, root } from './harness.ts'
import { type Client, openClient } from './http-load.ts'
import { type BenchServer, startServer } from './server.ts'

const ROUNDS = 7
/** A contestant's requests of one round come in turns with those of the others. */
const TURNS = 40
const REQUESTS = 50
const WARM_UP = 2_000
const TARGET_MS = 0.2
/** Never reached: what counting costs is in the figures, what being refused costs is not. */
const LIMIT = 1_000_000_000

const PASSWORD = 'correct horse battery staple'
const ENTRY = join(root, 'src/cli/main.ts')

type Headers = Record<string, string>
/** `paths` are those of the user's own things. */
type Contestant = { client: Client; paths: Record<Route, string> }
type Route = 'database' | 'memory'

const ROUTES: Record<Route, string> = {
  memory: 'GET /api/config/defaults',
  database: 'GET /api/threads/{id}',
}

/**
 * The time of a request in each mode less that of the same request in single-user mode: real servers on one database,
 * one connection each, one request at a time.
 */
export async function requestRows(databaseUrl: string, redisUrl: string | undefined): Promise<Row[]> {
  const opened: { stop(): Promise<void> | void }[] = []
  const serve = async (env: Record<string, string>): Promise<BenchServer> => {
    const server = await startServer(ENTRY, { DATABASE_URL: databaseUrl, ...env })
    opened.push(server)
    return server
  }
  try {
    const provider = await startProvider()
    opened.push(provider)
    const limited = { RATE_LIMIT_PER_MINUTE: String(LIMIT) }
    const accounts = { ...limited, AUTH_MODE: 'accounts', AUTH_SECRET: 'a secret of this benchmark alone' }
    const local = await serve(accounts)
    const credentials = await makeCredentials(databaseUrl, local.url)
    const contestants: Record<string, Contestant> = {
      [SINGLE]: await enter(await serve({}), {}),
      'access token': await enter(local, credentials.token),
      'API key': await enter(local, credentials.key),
      'token of a provider': await enter(await serve({ ...limited, ...provider.env }), provider.headers),
    }
    if (redisUrl !== undefined) {
      const prefix = `auth-bench-${process.pid}:`
      const shared = await serve({ ...accounts, REDIS_URL: redisUrl, REDIS_PREFIX: prefix })
      contestants['access token, limits in Redis'] = await enter(shared, credentials.token)
      contestants['API key, limits in Redis'] = await enter(shared, credentials.key)
    }
    return await compare(contestants)
  } finally {
    for (const part of opened.reverse()) await part.stop()
  }
}

const SINGLE = 'single-user mode'

async function compare(contestants: Record<string, Contestant>): Promise<Row[]> {
  const rows: Row[] = []
  for (const route of Object.keys(ROUTES) as Route[]) {
    const medians = await measure(contestants, route)
    const base = medians[SINGLE] ?? Number.NaN
    for (const [name, time] of Object.entries(medians)) {
      if (name === SINGLE) continue
      const cost = time - base
      const promised = !name.includes('Redis')
      rows.push({
        work: `${ROUTES[route]}, ${name}: more than in ${SINGLE}`,
        figure: `${cost.toFixed(3)} ms`,
        limit: `p50 ${ms(time)}, without ${ms(base)}`,
        ...(promised ? { target: `< ${TARGET_MS} ms`, met: cost < TARGET_MS } : {}),
      })
    }
  }
  return rows
}

/** For each contestant the median over the rounds of its p50, in ms. What slows the machine slows all. */
async function measure(
  contestants: Record<string, Contestant>,
  route: Route,
): Promise<Record<string, number>> {
  const entries = Object.entries(contestants)
  for (const [, { client, paths }] of entries) await client.get(paths[route], WARM_UP)
  const rounds = new Map<string, number[]>(entries.map(([name]) => [name, []]))
  for (let round = 0; round < ROUNDS; round++) {
    const times = new Map<string, number[]>(entries.map(([name]) => [name, []]))
    for (let turn = 0; turn < TURNS; turn++)
      for (const [name, { client, paths }] of entries)
        times.get(name)?.push(...(await client.get(paths[route], REQUESTS)))
    for (const [name, all] of times) rounds.get(name)?.push(median(all))
    const figures = [...rounds].map(([name, all]) => `${name} ${all.at(-1)?.toFixed(3)}`)
    process.stderr.write(`  round ${round + 1}/${ROUNDS}, ${ROUTES[route]}, ms: ${figures.join('; ')}\n`)
  }
  return Object.fromEntries([...rounds].map(([name, all]) => [name, median(all)]))
}

/** A connection that sends the credential, and a thread of its user to read. */
async function enter({ url }: BenchServer, headers: Headers): Promise<Contestant> {
  const { id } = await post<{ id: string }>(new URL('/api/threads', url), {}, headers)
  const paths = { database: `/api/threads/${id}`, memory: '/api/config/defaults' }
  return { client: await openClient(url, headers), paths }
}

async function makeCredentials(databaseUrl: string, url: URL): Promise<{ token: Headers; key: Headers }> {
  const username = `bench-${process.pid}`
  await using tb = await openThreadbase({ databaseUrl, env: {}, embeddings: false })
  const operator = { userId: 'operator', via: 'library' as const }
  const user = await tb.identity.users.create(operator, { username, password: PASSWORD })
  const { key } = await tb.identity.keys.create({ userId: user.id }, operator, { name: 'bench' })
  const login = { username, password: PASSWORD }
  const tokens = await post<{ access_token: string }>(new URL('/api/login', url), login, {})
  return {
    token: { authorization: `Bearer ${tokens.access_token}` },
    key: { authorization: `Bearer ${key}` },
  }
}

async function post<T>(url: URL, body: object, headers: Headers): Promise<T> {
  const answer = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  })
  if (!answer.ok) throw new Error(`the server answered ${answer.status} to POST ${url.pathname}`)
  return (await answer.json()) as T
}

/** An identity provider: a JWKS URL, and a token signed with its key. */
async function startProvider(): Promise<{ env: Headers; headers: Headers; stop(): void }> {
  const { publicKey, privateKey } = await generateKeyPair('RS256')
  const keys = JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid: 'one', alg: 'RS256' }] })
  const server = createServer((_request, response) => response.end(keys)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const token = await new SignJWT()
    .setProtectedHeader({ alg: 'RS256', kid: 'one' })
    .setIssuer(issuer)
    .setSubject(`bench-${process.pid}`)
    .setIssuedAt()
    .setExpirationTime('1h')
    .sign(privateKey)
  return {
    env: { AUTH_MODE: 'jwt', JWT_JWKS_URL: `${issuer}/keys`, JWT_ISSUER: issuer },
    headers: { authorization: `Bearer ${token}` },
    stop: () => void server.close(),
  }
}
