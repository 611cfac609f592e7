import { afterAll, beforeEach, describe, expect, test } from 'vitest'
import { councilEnv, councilScript, countAsked, type Exception, type Stage } from '../council.ts'
import type { Json } from '../http.ts'
import { startOpenAiServer } from '../openai-server.ts'
import { dial } from '../raw-http.ts'
import { availableStores, cleanUpAfterAll, serve, stop, temporaryDirectory } from './processes.ts'

cleanUpAfterAll()

const models = await startOpenAiServer(councilScript())
afterAll(() => models.close())
const follow = (exception?: Exception) => {
  models.requests.length = 0
  models.follow(councilScript(exception))
}
beforeEach(() => follow())
const hangIn = (wanted: Stage) => follow(({ stage }) => (stage === wanted ? { fault: 'hang' } : undefined))

const QUESTION = JSON.stringify({ content: 'Which rivers?' })
const stores = [
  ...availableStores,
  { name: 'JSON files', newEnv: async () => ({ DATABASE_URL: `json:${await temporaryDirectory()}` }) },
]

async function fetchJson(url: string, init?: RequestInit): Promise<Json> {
  return (await fetch(url, init)).json()
}

function openStream(url: string, id: string) {
  const { port } = new URL(url)
  const client = dial(Number(port))
  client.socket.write(
    `POST /api/conversations/${id}/message/stream HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ${QUESTION.length}\r\nconnection: close\r\n\r\n${QUESTION}`,
  )
  return client
}

const ask = (url: string, id: string) =>
  fetch(`${url}/api/conversations/${id}/message`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: QUESTION,
  })

/** The answer, once nobody else gives it: the turn of a process that was killed ends with its lease. */
async function askUntilFree(url: string, id: string): Promise<Json> {
  for (;;) {
    const answer = await ask(url, id)
    if (answer.status !== 409) return answer.json()
    await new Promise((resolve) => setTimeout(resolve, 500))
  }
}

describe.each(stores)('the council of a server on $name', ({ newEnv }) => {
  test('kill -9 between stages: the same question goes on where it was, and is counted once', async () => {
    const env = { ...(await newEnv()), ...councilEnv(models) }
    const first = await serve(env)
    const { id } = await fetchJson(`${first.url}/api/conversations`, { method: 'POST' })
    hangIn('stage2')
    const client = openStream(first.url, id)
    await client.until('stage2_start')
    const told = JSON.parse(/^data: (.*stage1_complete.*)$/m.exec(client.text())?.[1] ?? '')
    first.kill('SIGKILL')
    await first.exited
    await client.ended

    const second = await serve(env)
    const waiting = await fetchJson(`${second.url}/api/conversations/${id}`)
    expect(waiting.messages).toEqual([{ role: 'user', content: 'Which rivers?' }])
    follow()
    const answer = await askUntilFree(second.url, id)
    expect(answer.stage1).toEqual(told.data)
    expect(answer.stage3.response).toBe('alpha concludes')
    expect(Object.keys(countAsked(models)).filter((name) => name.endsWith('stage1'))).toEqual([])
    const { messages, title } = await fetchJson(`${second.url}/api/conversations/${id}`)
    expect(messages).toEqual([
      { role: 'user', content: 'Which rivers?' },
      { role: 'assistant', ...answer },
    ])
    expect(title).toBe('About rivers')
    expect(await fetchJson(`${second.url}/api/usage`)).toMatchObject({ total_queries: 1 })
    expect(await stop(second)).toEqual({ code: 0, signal: null })
  }, 90_000)

  test('SIGTERM lets an answer under way end, also when its client is gone', async () => {
    const env = { ...(await newEnv()), ...councilEnv(models), SHUTDOWN_TIMEOUT_S: '60' }
    const first = await serve(env)
    const { id } = await fetchJson(`${first.url}/api/conversations`, { method: 'POST' })
    follow(async ({ stage }) => {
      if (stage === 'stage2') await new Promise((resolve) => setTimeout(resolve, 1_500))
      return undefined
    })
    const client = openStream(first.url, id)
    await client.until('stage2_start')
    client.socket.destroy()
    expect(await stop(first)).toEqual({ code: 0, signal: null })
    const second = await serve(env)
    expect((await fetchJson(`${second.url}/api/conversations/${id}`)).messages).toHaveLength(2)
    await stop(second)
  }, 60_000)

  test('SIGTERM with too little time: who waits is told, and the same question goes on at once', async () => {
    const env = { ...(await newEnv()), ...councilEnv(models), SHUTDOWN_TIMEOUT_S: '1' }
    const first = await serve(env)
    const { id } = await fetchJson(`${first.url}/api/conversations`, { method: 'POST' })
    hangIn('stage3')
    const client = openStream(first.url, id)
    await client.until('stage3_start')
    expect(await stop(first)).toEqual({ code: 0, signal: null })
    await client.ended
    expect(client.text()).toMatch(/"type":"error","message":"the server is shutting down/)
    follow()
    const second = await serve(env)
    const answer = await ask(second.url, id)
    expect(answer.status).toBe(200)
    expect(countAsked(models)).toEqual({ 'alpha stage3': 1, 'namer title': 1 })
    await stop(second)
    for (const text of [first.stderr(), second.stderr(), first.stdout()])
      expect(text).not.toMatch(/sk-of-the-installation|Which rivers|concludes/)
  }, 60_000)
})
