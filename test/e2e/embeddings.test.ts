import { createServer } from 'node:http'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openThreadbase } from '../../src/open-threadbase.ts'
import { embedWords } from '../embedders.ts'
import { availableStores, cleanUpAfterAll, type Environment, runHere, serve, stop } from './processes.ts'

cleanUpAfterAll()

/** An `/embeddings` of the OpenAI API that can be switched off. */
async function startModel() {
  const state = { down: false }
  const server = createServer(async (request, response) => {
    let body = ''
    for await (const chunk of request) body += chunk
    if (state.down) return void response.writeHead(503).end('{}')
    const input = [JSON.parse(body).input].flat() as string[]
    const data = input.map((text, index) => ({
      object: 'embedding',
      index,
      embedding: [...embedWords(text)],
    }))
    response.setHeader('content-type', 'application/json')
    response.end(
      JSON.stringify({ object: 'list', data, model: 'words', usage: { prompt_tokens: 1, total_tokens: 1 } }),
    )
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  return { state, url: `http://127.0.0.1:${port}/v1`, close: () => server.close() }
}

describe.each(availableStores)('threadbase embeddings, $name', ({ name, newEnv }) => {
  let env: Environment
  let model: Awaited<ReturnType<typeof startModel>>
  beforeAll(async () => {
    model = await startModel()
    env = { ...(await newEnv()), EMBEDDING_MODEL: 'words', EMBEDDING_URL: model.url }
  })
  afterAll(() => model?.close())
  const embeddings = (...args: string[]) => runHere(['embeddings', ...args], env)
  const scope = { userId: 'local' }
  const append = async (texts: string[], given = env) => {
    await using tb = await openThreadbase({ env: { ...given, EMBEDDING_MODEL: 'none' } })
    const { id } = await tb.threads.create(scope)
    await tb.messages.append(
      scope,
      id,
      texts.map((content) => ({ role: 'user', content })),
    )
  }

  test('without embeddings it says so', async () => {
    await append(['one', 'two', ''])
    const off = { ...env, EMBEDDING_MODEL: 'none' }
    expect(await runHere(['embeddings', 'status'], off)).toMatchObject({
      ...{ code: 0, stderr: '' },
      stdout: expect.stringMatching(/model +none.*\nextension +not there.*\nwaiting +3\n/),
    })
    expect(await runHere(['embeddings', 'backfill'], off)).toMatchObject({
      ...{ code: 8, stdout: '' },
      stderr: expect.stringContaining('EMBEDDING_MODEL'),
    })
  })

  test('backfill embeds what waits, here and now', async () => {
    const { code, stdout, stderr } = await embeddings('backfill')
    expect([code, stderr]).toEqual([0, ''])
    expect(stdout).toMatch(/^3 done in [\d.]+ s/)
    expect((await embeddings('status')).stdout).toMatch(
      /model +words: .*\nextension +vector \d.*\nindex .*\nwaiting +0\ndone +2\nempty +1/,
    )
    const { stdout: json } = await embeddings('status', '--json')
    expect(JSON.parse(json)).toMatchObject({
      ...{ model: 'words', waiting: 0, done: 2, empty: 1, refused: 0, of_other_models: 0 },
      space: { available: true, index: name === 'postgres' ? 'hnsw' : 'none' },
      models: [{ model: 'words', done: 2, refused: 0, empty: 1 }],
    })
  })

  test('another model does all again', async () => {
    const other = { ...env, EMBEDDING_MODEL: 'other' }
    expect((await runHere(['embeddings', 'status'], other)).stdout).toMatch(/others +3 .*\n +words: 3/)
    expect((await runHere(['embeddings', 'backfill'], other)).stdout).toMatch(/^3 done/)
    expect(JSON.parse((await runHere(['embeddings', 'status', '--json'], other)).stdout)).toMatchObject({
      done: 2,
    })
  })

  test('index makes one on PostgreSQL only, and refuses what it cannot make', async () => {
    const made = await embeddings('index', '--type', 'ivfflat', '--lists', '20', '--memory', '64')
    if (name === 'postgres') {
      expect(made).toMatchObject({
        code: 0,
        stdout: expect.stringMatching(/^ivfflat of 20 lists on \d/),
        stderr: '',
      })
      expect(JSON.parse((await embeddings('index', '--json')).stdout)).toMatchObject({ index: 'hnsw' })
    } else expect(made).toMatchObject({ code: 8, stderr: expect.stringContaining('embedded store') })
    for (const args of [
      ['--type', 'flat'],
      ['--lists', '0'],
      ['--lists', 'x'],
      ['--memory', '-1'],
    ])
      expect(await embeddings('index', ...args), args.join()).toMatchObject({ code: 2 })
  })

  test.runIf(name === 'postgres')('a model that does not answer for long fails the backfill', async () => {
    model.state.down = true
    await append(['later'])
    const { code, stderr } = await embeddings('backfill', '--give-up', '2s')
    expect(code).toBe(7)
    expect(stderr).toMatch(/texts wait for their embeddings/)
    expect(stderr).toMatch(/threadbase: the embedding model words/)
    model.state.down = false
  })

  test('a server embeds in the background, after a restart too, and waits for who wants it', async () => {
    model.state.down = true
    const first = await serve(env)
    const call = async (path: string, body: object) => {
      const headers = { 'content-type': 'application/json' }
      return fetch(`${path}`, { method: 'POST', headers, body: JSON.stringify(body) })
    }
    const { id } = (await (await call(`${first.url}/api/threads`, {})).json()) as { id: string }
    const waiting = await call(`${first.url}/api/threads/${id}/messages?wait=embedding`, {
      role: 'user',
      content: 'tea',
    })
    expect([waiting.status, waiting.headers.get('x-embedding')]).toEqual([201, 'pending'])
    expect((await stop(first)).code).toBe(0)
    model.state.down = false
    const second = await serve(env)
    const answer = await call(`${second.url}/api/threads/${id}/messages?wait=embedding`, {
      role: 'user',
      content: 'x',
    })
    expect([answer.status, answer.headers.get('x-embedding')]).toEqual([201, 'embedded'])
    await stop(second)
    expect(JSON.parse((await embeddings('status', '--json')).stdout)).toMatchObject({ waiting: 0 })
  })

  test('db upgrade makes ready what embeddings are kept in', async () => {
    const fresh = { ...(await newEnv()), EMBEDDING_MODEL: 'words', EMBEDDING_URL: model.url }
    expect(await runHere(['db', 'upgrade'], fresh)).toMatchObject({ code: 0, stderr: '' })
    expect((await runHere(['embeddings', 'status'], fresh)).stdout).toMatch(/extension +vector/)
    expect(await runHere(['db', 'check'], fresh)).toMatchObject({ code: 0, stdout: 'no differences\n' })
  })
})
