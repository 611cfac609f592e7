import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { PostgresSaver } from '@langchain/langgraph-checkpoint-postgres'
import { sql } from 'kysely'
import { beforeAll, describe, expect, test } from 'vitest'
import yauzl from 'yauzl'
import { openThreadbase, type Threadbase } from '../../src/index.ts'
import { until } from '../embeddings.ts'
import { newSchemaName, postgresUrl } from '../harness.ts'
import type { Json } from '../http.ts'
import { graphOn, say, writeThread } from '../stock-checkpoints.ts'
import {
  availableStores,
  cleanUpAfterAll,
  type Environment,
  runHere,
  serve,
  stop,
  temporaryDirectory,
} from './processes.ts'

cleanUpAfterAll()

const SLOW_MS = 120_000

const ANALYSIS = {
  vulnerabilities: ['Slept four hours'],
  chain_links: [{ kind: 'thought', text: 'Nobody cares', at: '2026-01-31T21:40:00+01:00' }],
  problem_behavior: 'Drank a bottle of wine',
  prompting_event: 'A message that was not answered',
  consequences: 'Missed work',
  solutions: [{ text: 'Cold water', skill: 'TIPP' }],
  summary: 'Silence was taken for rejection.\0',
}

// What the application of seeds/chain-analysis-postgres.md does, from its tables to the erasure of a user.
describe.each(availableStores)('sessions of chain analysis on $name', ({ newEnv }) => {
  let env: Environment
  let session: string
  beforeAll(async () => {
    env = { ...(await newEnv()), EMBEDDING_MODEL: 'none', LOG_LEVEL: 'silent' }
  })
  const command = (...args: string[]) => runHere(args, env)
  const open = () => openThreadbase({ env: env as Record<string, string> })

  test('DB-1: after the migration the tables are there, with their columns and constraints', async () => {
    expect(await command('db', 'upgrade')).toMatchObject({ code: 0 })
    await using tb = await open()
    const columns = await columnsOf(tb)
    expect(columns.users).toMatchObject({ id: 'text', email: 'text', name: 'text', created_at: TIME })
    expect(columns.threads).toMatchObject({ id: 'uuid', kind: 'text', created_at: TIME, ended_at: TIME })
    expect(columns.messages).toMatchObject({
      thread_id: 'uuid',
      role: 'text',
      content: 'json',
      created_at: TIME,
    })
    expect(columns.chain_analysis_results).toMatchObject({
      session_id: 'uuid',
      vulnerabilities: 'jsonb',
      chain_links: 'jsonb',
      problem_behavior: 'text',
      prompting_event: 'text',
      consequences: 'text',
      solutions: 'jsonb',
      summary: 'text',
      created_at: TIME,
    })
    const references = await referencesOf(tb)
    for (const table of ['messages', 'chain_analysis_results', 'chain_analysis_versions'])
      expect(references).toContain(`${table} threads`)
    expect(references.filter((one) => one.startsWith('checkpoint'))).toEqual([])
  })

  test(
    'a conversation, its analysis and the search for both over HTTP',
    async () => {
      const server = await serve(env)
      const call = callerOf(server.url)
      session = (await call('POST', '/api/sessions', { title: 'Saturday' })).body.id
      const said = [
        { role: 'user', content: 'I drank again on Saturday.', message_id: 'm1' },
        { role: 'assistant', content: 'What was happening right before that?', message_id: 'm2' },
      ]
      for (const message of said)
        expect((await call('POST', `/api/threads/${session}/messages`, message)).status).toBe(201)
      const { body } = await call('GET', `/api/threads/${session}/messages`)
      expect(body.items.map(({ content }: { content: string }) => content)).toEqual(
        said.map(({ content }) => content),
      )

      const path = `/api/sessions/${session}/analysis`
      expect(await call('PUT', path, ANALYSIS)).toMatchObject({ status: 201, tag: '"1"', body: ANALYSIS })
      const writers = await Promise.all(
        Array.from({ length: 8 }, (_, n) =>
          call('PATCH', path, { consequences: `Missed work ${n}` }, { 'if-match': '"1"' }),
        ),
      )
      expect(writers.map(({ status }) => status).sort()).toEqual([200, ...Array(7).fill(409)])
      expect((await call('GET', `${path}/versions`)).body.items).toHaveLength(2)

      const found = async (query: string) =>
        (await call('GET', `/api/search?mode=text&${query}`)).body.items.map(
          ({ type, thread, analysis }: Hit) => [type, thread.id, analysis?.version],
        )
      expect(await found('q=drank&role=user')).toEqual([['message', session, undefined]])
      expect(await found('q=rejection&kind=chain_analysis')).toEqual([['analysis', session, 2]])
      expect((await found('q=drank')).map(([type]: string[]) => type).sort()).toEqual(['analysis', 'message'])
      // a snippet is shown in pages, whatever is in the analysis
      const patch = { summary: 'An unusual <img src=x onerror=alert(1)> word', consequences: 'Missed work' }
      expect((await call('PATCH', path, patch, { 'if-match': '"2"' })).status).toBe(200)
      const [hit] = (await call('GET', '/api/search?mode=text&q=unusual')).body.items as Hit[]
      expect(hit?.snippet).toContain('<mark>unusual</mark> &lt;img src')
      expect(await found('q=rejection')).toEqual([])
      expect((await call('PUT', path, ANALYSIS, { 'if-match': '*' })).tag).toBe('"4"')
      expect((await call('POST', `/api/sessions/${session}/end`)).body.ended_at).toMatch(/^20/)
      expect(await stop(server)).toMatchObject({ code: 0 })
    },
    SLOW_MS,
  )

  test('DB-2: a graph writes checkpoints under the id of the session, whatever becomes of that', async () => {
    await using tb = await open()
    const scope = { userId: 'local' }
    const { checkpointer } = tb.forUser(scope.userId)
    await writeThread(checkpointer, session)
    const state = await graphOn(checkpointer).getState({ configurable: { thread_id: session } })
    expect(state.values.messages.length).toBeGreaterThan(2)
    expect(await tb.analyses.getAnalysis(scope, session)).toMatchObject({ version: 4 })

    // neither refers to the other: state before the session is there, and after it is gone
    const id = crypto.randomUUID()
    await writeThread(checkpointer, id)
    await tb.sessions.create(scope, { id })
    await tb.analyses.put(scope, id, { summary: 'x' })
    await tb.threads.delete(scope, id)
    await graphOn(checkpointer).invoke(say('still there?', 'h9'), { configurable: { thread_id: id } })
    await checkpointer.deleteThread(id)
  })

  test.skipIf(postgresUrl === null)("DB-2: LangGraph's own PostgresSaver stands beside it", async () => {
    if (env.DATABASE_URL === undefined) return
    const schema = newSchemaName()
    const peer = PostgresSaver.fromConnString(String(postgresUrl), { schema })
    await using tb = await open()
    try {
      await peer.setup()
      await writeThread(peer, session)
      await tb.analyses.patch({ userId: 'local' }, session, { summary: 'beside' }, { ifVersion: 4 })
      const state = await graphOn(peer).getState({ configurable: { thread_id: session } })
      expect(state.values.messages.length).toBeGreaterThan(1)
      const { analysis } = await tb.analyses.getVersion({ userId: 'local' }, session, 4)
      await tb.analyses.put({ userId: 'local' }, session, analysis, { ifVersion: 5 })
    } finally {
      await sql`drop schema if exists ${sql.id(schema)} cascade`.execute(tb.database.db)
      await peer.end()
    }
  })

  test(
    'DB-3: messages and the analysis have embeddings, and are found by what they mean',
    async () => {
      const server = await serve({ ...env, EMBEDDING_MODEL: 'local', EMBEDDING_ENGINE: 'wasm' })
      const call = callerOf(server.url)
      const { id: other } = (await call('POST', '/api/sessions', { title: 'Other' })).body
      const message = { role: 'user', content: 'My sister and I went hiking in the mountains.' }
      const appended = await call('POST', `/api/threads/${other}/messages?wait=embedding`, message)
      expect([appended.status, appended.embedding]).toEqual([201, 'embedded'])
      const path = `/api/sessions/${other}/analysis`
      await call('PUT', path, { summary: 'Jealousy of a colleague who was promoted.' })

      const nearest = async (q: string, more = '') => {
        const query = `q=${encodeURIComponent(q)}&mode=semantic${more}`
        const [hit] = (await call('GET', `/api/search?${query}`)).body.items as Hit[]
        return hit && [hit.type, hit.thread.id, hit.analysis?.version]
      }
      const finds = (q: string, expected: unknown[]) =>
        until(async () => JSON.stringify(await nearest(q)) === JSON.stringify(expected), q)
      // what was stored while there was no model, too
      await finds('alcohol relapse at the weekend', ['message', session, undefined])
      await finds('being ignored by somebody hurts', [
        'analysis',
        session,
        env.DATABASE_URL === undefined ? 4 : 6,
      ])
      await finds('a walk outdoors with family', ['message', other, undefined])
      await finds('envy at work', ['analysis', other, 1])
      // what an analysis does not say any more is not found by it
      await call('PATCH', path, { summary: 'Fear of flying in an airplane.' }, { 'if-match': '"1"' })
      await finds('scared of planes', ['analysis', other, 2])
      expect(await nearest('envy at work')).not.toEqual(['analysis', other, 2])
      expect((await call('DELETE', `/api/threads/${other}`)).status).toBe(204)
      expect(await nearest('scared of planes')).not.toEqual(['analysis', other, 2])
      expect(await stop(server)).toMatchObject({ code: 0 })
    },
    SLOW_MS,
  )

  test('threadbase sessions and analysis show them', async () => {
    const list = await command('sessions', 'list')
    expect([list.code, list.stderr]).toEqual([0, ''])
    expect(list.stdout).toMatch(
      new RegExp(`^20\\S+Z {2}${session} {2}ended 20\\S+Z {2}analysis [46] {2}"Saturday"\\n$`),
    )
    const [line = ''] = (await command('sessions', 'list', '--json')).stdout.split('\n')
    expect(JSON.parse(line)).toMatchObject({
      id: session,
      type: 'chain_analysis',
      title: 'Saturday',
      last_seq: 2,
    })
    expect((await command('sessions', 'list', '--user', 'bob')).stdout).toBe('')

    const show = await command('analysis', 'show', session)
    expect([show.code, show.stderr]).toEqual([0, ''])
    expect(show.stdout).toContain('\n  - thought: Nobody cares (at: 2026-01-31T21:40:00+01:00)\n')
    expect(show.stdout).toContain('\nSummary\n  Silence was taken for rejection.\ufffd\n')
    const first = await command('analysis', 'show', session, '1', '--json')
    expect(JSON.parse(first.stdout)).toMatchObject({ session_id: session, version: 1, analysis: ANALYSIS })
    for (const [args, code] of [
      [[session, '9'], 3],
      [[session, '--user', 'bob'], 3],
      [['x'], 2],
      [[session, '0'], 2],
    ] as const) {
      const refused = await command('analysis', 'show', ...args)
      expect([refused.code, refused.stdout]).toEqual([code, ''])
      expect(refused.stderr).toMatch(/\S/)
    }
  })

  test('what is handed over has the analysis and its versions as they were written', async () => {
    const file = join(await temporaryDirectory(), 'local.zip')
    const { code, stderr } = await command('gdpr', 'export', 'local', '--output', file)
    expect([code, stderr]).toEqual([0, ''])
    const lines = await readLines(file, ['analyses.jsonl', 'analysis_versions.jsonl'])
    expect(lines['analyses.jsonl']).toEqual([expect.objectContaining({ session_id: session, ...ANALYSIS })])
    const versions = lines['analysis_versions.jsonl'] ?? []
    expect(versions[0]).toMatchObject({ session_id: session, version: 1, result: ANALYSIS })
    expect(versions.length).toBeGreaterThanOrEqual(3)
  })

  test('what is erased is gone, and stays gone', async () => {
    expect(await command('gdpr', 'erase', 'local', '--yes')).toMatchObject({ code: 0 })
    expect((await command('sessions', 'list')).stdout).toBe('')
    expect((await command('analysis', 'show', session)).code).toBe(3)
    await using tb = await open()
    for (const table of ['chain_analysis_results', 'chain_analysis_versions', 'checkpoints', 'threads']) {
      const left = await sql`select from ${sql.table(table)}`.execute(tb.database.db)
      expect(left.rows, table).toEqual([])
    }
    await expect(tb.sessions.create({ userId: 'local' })).rejects.toMatchObject({ code: 'forbidden' })
  })
})

type Answer = { status: number; tag: string | null; embedding: string | null; body: Json }

const callerOf =
  (url: string) =>
  async (
    method: string,
    path: string,
    body?: object,
    headers: Record<string, string> = {},
  ): Promise<Answer> => {
    const json = body === undefined ? {} : { 'content-type': 'application/json' }
    const answer = await fetch(url + path, {
      method,
      headers: { ...json, ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await answer.text()
    const [tag, embedding] = ['etag', 'x-embedding'].map((name) => answer.headers.get(name))
    return {
      status: answer.status,
      tag: tag ?? null,
      embedding: embedding ?? null,
      body: text === '' ? null : JSON.parse(text),
    }
  }

type Hit = { type: string; snippet: string; thread: { id: string }; analysis: { version: number } | null }

const TIME = 'timestamp with time zone'

/** The type of each column, by table. */
async function columnsOf({ database }: Threadbase): Promise<Record<string, Record<string, string>>> {
  const { rows } = await sql<{ name: string; columns: Record<string, string> }>`
    select table_name::text as name, jsonb_object_agg(column_name, data_type) as columns
      from information_schema.columns where table_schema = ${database.schema} group by table_name`.execute(
    database.db,
  )
  return Object.fromEntries(rows.map(({ name, columns }) => [name, columns]))
}

/** Which table refers to which. */
async function referencesOf({ database }: Threadbase): Promise<string[]> {
  const { rows } = await sql<{ pair: string }>`
    select c.relname || ' ' || f.relname as pair from pg_constraint k
      join pg_class c on c.oid = k.conrelid join pg_class f on f.oid = k.confrelid
      join pg_namespace n on n.oid = c.relnamespace
     where k.contype = 'f' and n.nspname = ${database.schema}`.execute(database.db)
  return rows.map(({ pair }) => pair)
}

/** The documents of files in a zip, by name. */
async function readLines(file: string, names: string[]): Promise<Record<string, unknown[]>> {
  const zip = await yauzl.fromBufferPromise(await readFile(file))
  const found: Record<string, unknown[]> = {}
  for await (const entry of zip.eachEntry()) {
    const name = names.find((one) => entry.fileName.endsWith(one))
    if (name === undefined) continue
    const parts: Buffer[] = []
    for await (const part of await zip.openReadStreamPromise(entry)) parts.push(part as Buffer)
    const text = Buffer.concat(parts).toString('utf8').trim()
    found[name] = text === '' ? [] : text.split('\n').map((line) => JSON.parse(line))
  }
  return found
}
