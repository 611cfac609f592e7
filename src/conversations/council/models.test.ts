import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { recordingLog } from '../../../test/harness.ts'
import { type Answer, type OpenAiServer, startOpenAiServer } from '../../../test/openai-server.ts'
import type { ModelUsage } from '../schema.ts'
import { type Endpoint, findEndpoint } from './endpoint.ts'
import { openModels } from './models.ts'

const KEY = 'sk-very-secret-key-of-somebody'

describe('a model, through the real client', () => {
  let server: OpenAiServer
  let answers: Answer[] = []
  beforeAll(async () => {
    server = await startOpenAiServer(() => answers.shift() ?? { text: 'fine' })
  })
  afterAll(() => server?.close())

  async function ask(
    given: Answer[],
    over: { timeoutMs?: number; retries?: number; signal?: AbortSignal; endpoint?: Partial<Endpoint> } = {},
  ) {
    answers = given
    const { log, logged } = recordingLog()
    const before = server.requests.length
    const spent: ModelUsage[] = []
    const endpoint = {
      kind: 'openai',
      url: server.url,
      key: KEY,
      models: [],
      chairman: '',
      titleModel: '',
      ...over.endpoint,
    } as const
    const models = await openModels(
      { ...endpoint, models: [] },
      { timeoutMs: over.timeoutMs ?? 2_000, retries: over.retries ?? 2 },
      log,
    )
    const signal = over.signal ?? new AbortController().signal
    const began = performance.now()
    const asked = await models.ask(
      { model: 'm', stage: 'stage1', messages: [{ role: 'user', content: 'one two three' }], signal },
      (usage) => spent.push(usage),
    )
    // what endpoints say may repeat keys
    expect(JSON.stringify([asked, logged])).not.toMatch(/very-secret|echo/)
    return { asked, spent, times: server.requests.length - before, ms: performance.now() - began, logged }
  }

  test('answers, and says what it cost', async () => {
    const { asked, spent, times } = await ask([{ text: 'yes and no', cost: 0.5 }])
    expect(asked).toEqual({ model: 'm', text: 'yes and no' })
    expect(spent).toEqual([{ model: 'm', stage: 'stage1', input_tokens: 3, output_tokens: 3, cost: 0.5 }])
    expect(times).toBe(1)
    expect(server.credentials.at(-1)).toBe(`Bearer ${KEY}`)
    expect(server.requests.at(-1)).toEqual({
      model: 'm',
      stream: false,
      messages: [{ role: 'user', content: 'one two three' }],
    })
  })

  test('OpenRouter is asked for the cost', async () => {
    await ask([], { endpoint: { kind: 'openrouter' } })
    expect(server.requests.at(-1)).toMatchObject({ usage: { include: true } })
  })

  test.each<[string, Answer]>([
    ['500', { status: 500, error: 'echo' }],
    ['503', { status: 503, error: 'echo' }],
    ['429', { status: 429, error: 'echo' }],
    ['a connection that is cut', { fault: 'cut' }],
    ['an answer that is cut', { fault: 'cut-body' }],
    ['half an answer', { fault: 'half' }],
    ['garbage', { fault: 'garbage' }],
    ['no choices', { fault: 'no-choices' }],
    ['an error in an answer', { fault: 'wrapped' }],
    ['an empty text', { text: ' \n' }],
  ])('is asked again after %s', async (_, fault) => {
    const { asked, times, logged } = await ask([fault])
    expect(asked).toEqual({ model: 'm', text: 'fine' })
    expect(times).toBe(2)
    expect(logged).toMatchObject([{ level: 'warn', facts: { model: 'm', stage: 'stage1', attempt: 1 } }])
  })

  test('is asked again after no answer in time, and no more than configured', async () => {
    const hang: Answer = { fault: 'hang' }
    const late = await ask([hang], { timeoutMs: 200 })
    expect(late).toMatchObject({ asked: { text: 'fine' }, times: 2 })
    const never = await ask([hang, hang], { timeoutMs: 200, retries: 1 })
    expect(never).toMatchObject({ asked: { model: 'm', reason: 'no answer within 0.2 s' }, times: 2 })
    const once = await ask([{ status: 500, error: 'echo' }], { retries: 0 })
    expect(once).toMatchObject({ asked: { reason: 'it answered 500' }, times: 1 })
  })

  test('waits as long as it is told, unless that is too long', async () => {
    const wait = (header: string, value: string): Answer => ({
      status: 429,
      error: 'echo',
      headers: { [header]: value },
    })
    const second = await ask([wait('retry-after', '1')])
    expect(second).toMatchObject({ asked: { text: 'fine' }, times: 2 })
    expect(second.ms).toBeGreaterThan(950)
    expect((await ask([wait('retry-after-ms', '1')])).ms).toBeLessThan(250)
    const date = await ask([wait('retry-after', new Date(Date.now() - 5_000).toUTCString())])
    expect(date).toMatchObject({ asked: { text: 'fine' }, times: 2 })
    const long = await ask([wait('retry-after', '3600')])
    expect(long).toMatchObject({ asked: { reason: 'it answered 429' }, times: 1 })
  })

  test.each([
    [400, 'it answered 400'],
    [401, 'it answered 401: the key is not accepted'],
    [404, 'it answered 404'],
  ])('is not asked again after %i', async (status, reason) => {
    const { asked, times } = await ask([{ status, error: `echo of ${KEY}` }])
    expect([asked, times]).toEqual([{ model: 'm', reason }, 1])
  })

  test('a key does not follow a redirection', async () => {
    const { asked, times } = await ask([{ fault: 'redirect' }])
    expect([asked, times]).toEqual([{ model: 'm', reason: 'it answered 307' }, 1])
  })

  test('an endpoint that is not there is a failure like others', async () => {
    const { asked } = await ask([], { endpoint: { url: 'http://127.0.0.1:9/v1' }, retries: 0 })
    expect(asked).toMatchObject({ reason: expect.stringMatching(/^the connection failed/) })
  })

  test('is given up at once, while it answers and between tries', async () => {
    for (const fault of [
      { fault: 'hang' },
      { status: 429, error: 'echo', headers: { 'retry-after': '30' } },
    ] as const) {
      const reason = new Error('given up')
      const controller = new AbortController()
      setTimeout(() => controller.abort(reason), 150)
      const began = performance.now()
      await expect(ask([fault], { signal: controller.signal })).rejects.toBe(reason)
      expect(performance.now() - began).toBeLessThan(1_000)
    }
    await expect(ask([], { signal: AbortSignal.abort(new Error('before')) })).rejects.toThrow('before')
  })
})

describe('whom to ask', () => {
  const settings = {
    keys: { openrouter: undefined as string | undefined, openai: undefined as string | undefined },
    urls: { openrouter: 'https://or', openai: 'https://oa' },
    models: undefined as string[] | undefined,
    chairman: undefined,
    titleModel: undefined,
  }
  const userWith = (keys: Record<string, string>) => ({
    forUser: () => ({ find: async (name: string) => keys[name] }),
  })
  const find = (keys: Record<string, string>, over: Partial<typeof settings> = {}) =>
    findEndpoint({ userId: 'u' }, { ...settings, ...over }, userWith(keys))

  test("the user's own key comes first, and goes to the endpoint of its kind alone", async () => {
    const keys = { openrouter: 'or-of-all', openai: 'oa-of-all' }
    const own = { openrouter: 'or-own', openai: 'oa-own' }
    expect(await find(own, { keys })).toMatchObject({ kind: 'openrouter', url: 'https://or', key: 'or-own' })
    expect(await find({ openai: 'oa-own' }, { keys })).toMatchObject({ url: 'https://oa', key: 'oa-own' })
    expect(await find({}, { keys })).toMatchObject({ url: 'https://or', key: 'or-of-all' })
    expect(await find({}, { keys: { ...keys, openrouter: undefined } })).toMatchObject({
      url: 'https://oa',
      key: 'oa-of-all',
    })
    expect(await findEndpoint({ userId: 'u' }, { ...settings, keys }, undefined)).toMatchObject({
      key: 'or-of-all',
    })
  })

  test('without a key it says which variables to set', async () => {
    await expect(find({})).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/OPENROUTER_API_KEY or OPENAI_API_KEY/),
    })
  })

  test('names of models are for the endpoint of the installation; the other kind has defaults', async () => {
    const over = { keys: { openrouter: undefined, openai: 'k' }, models: ['a', 'b', 'a'] }
    expect(await find({}, over)).toMatchObject({ models: ['a', 'b'], chairman: 'a', titleModel: 'a' })
    const other = await find({ openrouter: 'own' }, over)
    expect(other.models.every((name) => name.includes('/'))).toBe(true)
    expect(other.models).toContain(other.chairman)
    const defaults = await find({ openai: 'own' })
    expect(defaults.models.length).toBeGreaterThan(1)
    // without a key of the installation, by their spelling
    expect(await find({ openai: 'own' }, { models: ['x/a'] })).toMatchObject({ models: defaults.models })
    expect(await find({ openrouter: 'own' }, { models: ['x/a'] })).toMatchObject({ models: ['x/a'] })
  })
})
