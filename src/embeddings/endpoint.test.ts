import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { vectorOf } from '../../test/openai-embeddings.ts'
import { type OpenAiServer, startOpenAiServer } from '../../test/openai-server.ts'
import { cosine } from '../../test/real-embedders.ts'
import { ThreadbaseError } from '../core/errors.ts'
import { type EndpointOptions, openEndpoint } from './endpoint.ts'

const KEY = 'sk-never-to-be-seen'

describe('an endpoint', () => {
  let server: OpenAiServer
  beforeAll(async () => {
    server = await startOpenAiServer()
  })
  afterAll(() => server?.close())
  beforeEach(() => {
    server.embeddings.be({})
    server.embeddings.requests.splice(0)
    server.embeddings.credentials.splice(0)
  })
  const open = (options: Partial<EndpointOptions> = {}) =>
    openEndpoint({ model: 'stand-in', url: server.url, key: KEY, timeoutMs: 5_000, ...options })
  const refusal = async (texts: string[], options: Partial<EndpointOptions> = {}) => {
    const error = await open(options)
      .embed(texts)
      .catch((thrown) => thrown)
    expect(error).toBeInstanceOf(ThreadbaseError)
    expect(JSON.stringify([error.message, error.details, String(error.cause)])).not.toContain(KEY)
    return error as ThreadbaseError
  }

  test('is asked for 384 numbers, with the key and the model', async () => {
    const embedder = open({ url: `${server.url}/` })
    expect(embedder).toMatchObject({
      model: 'stand-in',
      description: `stand-in at ${new URL(server.url).host}`,
    })
    await embedder.embed(['one', 'two'])
    expect(server.embeddings.requests).toEqual([
      { model: 'stand-in', input: ['one', 'two'], encoding_format: 'base64', dimensions: 384 },
    ])
    expect(server.embeddings.credentials).toEqual([`Bearer ${KEY}`])
    await open({ key: undefined }).embed(['one'])
    expect(server.embeddings.credentials[1]).toBeUndefined()
  })

  test.each([
    ['as it is asked', {}],
    ['numbers whatever it is asked', { form: 'float' as const }],
    ['a model of this length, which takes no dimensions', { length: 384, dimensions: 'refused' as const }],
    ['a model of this length, which ignores dimensions', { length: 384, dimensions: 'ignored' as const }],
  ])('%s', async (_, model) => {
    server.embeddings.be(model)
    const texts = ['to be', 'or not', 'to be or not']
    const vectors = await open().embed(texts)
    for (const [i, text] of texts.entries()) {
      const wanted = vectorOf(text, 384)
      const length = Math.hypot(...wanted)
      expect(cosine(vectors[i] as Float32Array, wanted) / length).toBeCloseTo(1, 5)
    }
  })

  test('who refuses the parameter is asked with it once', async () => {
    server.embeddings.be({ length: 384, dimensions: 'refused' })
    const embedder = open()
    await embedder.embed(['a'])
    await embedder.embed(['b'])
    expect(server.embeddings.requests.map(({ dimensions }) => dimensions)).toEqual([
      384,
      undefined,
      undefined,
    ])
  })

  test.each([
    ['ignored' as const, 1536],
    ['refused' as const, 768],
    ['ignored' as const, 3],
  ])(
    'vectors of another length, dimensions %s: says what EMBEDDING_MODEL must give',
    async (dimensions, length) => {
      server.embeddings.be({ length, dimensions })
      const error = await refusal(['a', 'b'])
      expect(error).toMatchObject({ code: 'unavailable', details: { model: 'stand-in', length } })
      expect(error.message).toBe(
        `EMBEDDING_MODEL must give vectors of 384 numbers: those of stand-in have ${length}`,
      )
    },
  )

  test('many and long texts go in several requests', async () => {
    const embedder = open()
    await embedder.embed(Array.from({ length: 150 }, (_, i) => `text ${i}`))
    expect(server.embeddings.requests.map(({ input }) => input.length)).toEqual([64, 64, 22])
    server.embeddings.requests.splice(0)
    await embedder.embed(Array.from({ length: 14 }, () => 'x'.repeat(1_000_000)))
    expect(server.embeddings.requests.map(({ input }) => input.length)).toEqual([12, 2])
  })

  describe('refuses', () => {
    const refuse = (isWrong: (text: string) => boolean) =>
      server.embeddings.be({
        instead: ({ input }) =>
          [input].flat().some(isWrong) ? { status: 400, error: `not this: ${KEY}` } : undefined,
      })

    test('one text: invalid_input for all of a call, and alone', async () => {
      refuse((text) => text.includes('bomb'))
      expect(await refusal(['a', 'a bomb', 'b'])).toMatchObject({
        code: 'invalid_input',
        details: { status: 400 },
      })
      expect(await refusal(['a bomb'])).toMatchObject({ code: 'invalid_input' })
      expect(await open().embed(['a', 'b'])).toHaveLength(2)
    })

    test('a long text: its beginning is taken', async () => {
      refuse((text) => text.length > 512)
      expect(await open().embed(['word '.repeat(2_000)])).toHaveLength(1)
      expect(server.embeddings.requests.at(-1)?.input).toEqual(['word '.repeat(2_000).slice(0, 400)])
    })

    test('every text: none of them is to blame', async () => {
      refuse(() => true)
      expect(await refusal(['a'])).toMatchObject({ code: 'unavailable', details: { status: 400 } })
    })

    test('a vector of zeros has no direction', async () => {
      const zeros = { object: 'list', data: [{ index: 0, embedding: Array.from({ length: 384 }, () => 0) }] }
      server.embeddings.be({ instead: ({ input }) => (input[0] === 'void' ? { json: zeros } : undefined) })
      expect(await refusal(['void'])).toMatchObject({ code: 'invalid_input' })
    })
  })

  describe('fails', () => {
    test.each([
      [401, /EMBEDDING_API_KEY/],
      [403, /EMBEDDING_API_KEY/],
      [404, /EMBEDDING_MODEL/],
      [402, /402/],
      [429, /429/],
      [500, /500/],
      [503, /503/],
    ])('%i is unavailable', async (status, says) => {
      server.embeddings.be({ instead: () => ({ status, error: `the key ${KEY} is wrong` }) })
      const error = await refusal(['a'])
      expect(error).toMatchObject({ code: 'unavailable', details: { status } })
      expect(error.message).toMatch(says)
      expect(error.details).not.toHaveProperty('retryAfterS')
    })

    test.each([
      [429, { 'retry-after': '7' }, 7],
      [503, { 'retry-after': '120' }, 120],
      [429, { 'retry-after-ms': '1500' }, 2],
    ])('%i says when to come back', async (status, headers, retryAfterS) => {
      server.embeddings.be({ instead: () => ({ status, error: 'later', headers }) })
      expect(await refusal(['a'])).toMatchObject({ code: 'unavailable', details: { status, retryAfterS } })
    })

    test.each(['cut', 'cut-body', 'garbage', 'half', 'no-choices', 'wrapped', 'redirect'] as const)(
      '%s is unavailable',
      async (fault) => {
        server.embeddings.be({ instead: () => ({ fault }) })
        expect(await refusal(['a'])).toMatchObject({ code: 'unavailable' })
        expect(server.embeddings.requests).toHaveLength(1)
      },
    )

    test.each([
      ['too few', { data: [] }],
      ['one place twice', { data: [0, 0].map((index) => ({ index, embedding: [...vectorOf('a', 384)] })) }],
      [
        'a place that is not',
        { data: [0, 7].map((index) => ({ index, embedding: [...vectorOf('a', 384)] })) },
      ],
      ['no numbers', { data: [0, 1].map((index) => ({ index, embedding: ['1'] })) }],
      ['half a number', { data: [0, 1].map((index) => ({ index, embedding: 'AAA=' })) }],
      ['nothing', null],
    ])('%s of its vectors', async (_, json) => {
      server.embeddings.be({ instead: () => ({ json: json as object }) })
      expect(await refusal(['a', 'b'])).toMatchObject({ code: 'unavailable' })
    })

    test('slow is unavailable after the time it has', async () => {
      server.embeddings.be({ instead: () => ({ fault: 'hang' }) })
      const started = performance.now()
      const error = await refusal(['a'], { timeoutMs: 200 })
      expect(performance.now() - started).toBeLessThan(3_000)
      expect(error.message).toBe(
        `the embedding model stand-in at ${new URL(server.url).host} gave no answer within 0.2 s`,
      )
    })

    test('away is unavailable, and found again when it is back', async () => {
      const other = await startOpenAiServer()
      await other.close()
      expect((await refusal(['a'], { url: other.url })).message).toContain('cannot be reached (ECONNREFUSED)')
      server.embeddings.be({ instead: () => ({ status: 500, error: 'down' }) })
      const embedder = open()
      await expect(embedder.embed(['a'])).rejects.toMatchObject({ code: 'unavailable' })
      server.embeddings.be({})
      expect(await embedder.embed(['a'])).toHaveLength(1)
    })
  })
})
