import { randomUUID } from 'node:crypto'
import { readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { councilAt, councilScript, countAsked, type Exception, KEY, MODELS } from '../../../test/council.ts'
import { gate } from '../../../test/gate.ts'
import { engines, makeTempDir, recordingLog, type TestDatabase } from '../../../test/harness.ts'
import { type OpenAiServer, startOpenAiServer, textOf } from '../../../test/openai-server.ts'
import { openThreadbase } from '../../open-threadbase.ts'
import type { Threadbase } from '../../threadbase.ts'
import type { Council, CouncilEvent, CouncilParts } from './council.ts'
import { createCouncil } from './council.ts'

type Over = Omit<Partial<CouncilParts>, 'settings'> & { settings?: Partial<CouncilParts['settings']> }

const BY = { userId: 'tests', via: 'library' } as const

type State = { stage1?: unknown; stage2?: unknown } | undefined
type Opened = {
  tb: Threadbase
  /** What is kept of the turn of a user's only conversation. */
  readTurn(userId: string): Promise<State>
  close(): Promise<void>
}

const stores: { name: string; available: boolean; open(): Promise<Opened> }[] = [
  ...engines.map(({ name, available, open }) => ({ name, available, open: async () => onSql(await open()) })),
  { name: 'JSON files', available: true, open: openJson },
]

function onSql({ tb, database, close }: TestDatabase): Opened {
  const readTurn = async (userId: string) => {
    const { rows } = await sql<{ state: State }>`
      select state from ${sql.table(`${database.schema}.council_turns`)} where user_id = ${userId}`.execute(
      database.db,
    )
    return rows[0]?.state
  }
  return { tb, readTurn, close }
}

async function openJson(): Promise<Opened> {
  const dir = await makeTempDir()
  const tb = await openThreadbase({ databaseUrl: `json:${dir}` })
  const readTurn = async (userId: string) => {
    const names = await readdir(join(dir, 'conversations', userId))
    const file = names.find((name) => name.endsWith('.turn'))
    if (file === undefined) return undefined
    return JSON.parse(await readFile(join(dir, 'conversations', userId, file), 'utf8')).turn as State
  }
  const close = async () => {
    await tb.close()
    await rm(dir, { recursive: true, force: true })
  }
  return { tb, readTurn, close }
}

for (const store of stores) {
  describe.skipIf(!store.available)(`the council on ${store.name}`, () => {
    let opened: Opened
    let server: OpenAiServer
    const isSql = store.name !== 'JSON files'
    const councils: Council[] = []
    beforeAll(async () => {
      opened = await store.open()
      server = await startOpenAiServer(councilScript())
    })
    afterAll(async () => {
      await Promise.all(councils.map((council) => council.close()))
      await server?.close()
      await opened?.close()
    })
    beforeEach(() => follow())
    const follow = (exception?: Exception) => {
      server.requests.length = 0
      server.credentials.length = 0
      server.follow(councilScript(exception))
    }

    function newCouncil(over: Over = {}) {
      const { conversations, usage } = opened.tb
      const credentials = isSql ? opened.tb.credentials : undefined
      const settings = { ...councilAt(server), ...over.settings }
      const council = createCouncil({
        conversations,
        usage,
        credentials,
        log: recordingLog().log,
        ...over,
        settings,
      })
      councils.push(council)
      return council
    }

    /** A conversation of a new user, with a council. */
    async function begin(over: Over = {}) {
      const scope = { userId: `u-${randomUUID()}` }
      const { id } = await opened.tb.conversations.createConversation(scope)
      const council = newCouncil(over)
      const events: CouncilEvent[] = []
      return {
        scope,
        id,
        council,
        events,
        ask: (content = 'Which rivers?', signal?: AbortSignal) =>
          council.ask(scope, id, content, { onEvent: (event) => void events.push(event), signal }),
        read: () => opened.tb.conversations.getConversation(scope, id),
        used: async () => (await opened.tb.usage.read(scope)).totalQueries,
        told: () => events.map(({ type }) => type),
        state: () => opened.readTurn(scope.userId),
      }
    }

    const ALL = [
      'stage1_start',
      'stage1_complete',
      'stage2_start',
      'stage2_complete',
      'stage3_start',
      'stage3_complete',
    ]

    test('asks all, lets them rank, concludes, and names the conversation', async () => {
      const { ask, read, told, used, events, scope } = await begin()
      const answer = await ask()
      expect(answer.stage1.map(({ model }) => model)).toEqual(MODELS)
      expect(answer.stage1[0]?.response).toBe('alpha says: Which rivers? é\u2028😀')
      const { label_to_model = {}, aggregate_rankings, usage } = answer.metadata ?? {}
      expect(Object.keys(label_to_model)).toEqual(['Response A', 'Response B', 'Response C'])
      expect(Object.values(label_to_model).sort()).toEqual(MODELS)
      for (const { parsed_ranking } of answer.stage2)
        expect(parsed_ranking.map((label) => label_to_model[label])).toEqual(MODELS)
      expect(aggregate_rankings).toEqual(
        MODELS.map((model, i) => ({ model, average_rank: i + 1, rankings_count: 3 })),
      )
      expect(answer.stage3).toEqual({ model: 'alpha', response: 'alpha concludes' })
      expect(usage?.map(({ model, stage }) => `${model} ${stage}`).sort()).toEqual(
        [
          ...MODELS.flatMap((model) => [`${model} stage1`, `${model} stage2`]),
          'alpha stage3',
          'namer title',
        ].sort(),
      )
      expect(usage?.reduce((sum, { cost = 0 }) => sum + cost, 0)).toBeCloseTo(0.12)
      expect(Object.keys(answer.metadata ?? {}).sort()).toEqual([
        'aggregate_rankings',
        'label_to_model',
        'usage',
      ])
      expect(told()).toEqual([...ALL, 'title_complete', 'complete'])
      expect(events.at(-2)).toEqual({ type: 'title_complete', data: { title: 'About rivers' } })
      const stored = await read()
      expect(stored.title).toBe('About rivers')
      expect(stored.messages).toEqual([
        { role: 'user', content: 'Which rivers?' },
        { role: 'assistant', ...answer },
      ])
      expect(await used()).toBe(1)
      const totals = await opened.tb.usage.totals(scope)
      expect(totals.map(({ model, calls }) => [model, calls])).toContainEqual(['alpha', 3])
    })

    test('a second question comes with what was said before, and gets no title', async () => {
      const { ask, told, read } = await begin()
      await ask()
      follow()
      await ask('And which lakes?')
      expect(told().slice(8)).toEqual([...ALL, 'complete'])
      expect((await read()).messages).toHaveLength(4)
      for (const { messages } of server.requests)
        expect(messages.slice(0, -1).map(textOf)).toEqual(['Which rivers?', 'alpha concludes'])
      expect(Object.keys(countAsked(server))).not.toContain('namer title')
    })

    test('labels are shuffled', async () => {
      const orders = new Set<string>()
      for (let i = 0; i < 12; i++) {
        const { ask } = await begin()
        orders.add(Object.values((await ask()).metadata?.label_to_model ?? {}).join())
      }
      expect(orders.size).toBeGreaterThan(1)
    })

    test('all is stored before it is told', async () => {
      const hold = gate()
      const { ask, state, read, events } = await begin()
      follow(async ({ stage, model }) => {
        if (stage === 'stage2' && model === 'beta') await hold.opened
        return undefined
      })
      const asked = ask()
      await expect.poll(() => events.at(-1)?.type, { timeout: 5_000 }).toBe('stage2_start')
      expect((await state())?.stage1).toEqual((events[1] as { data: unknown }).data)
      expect((await read()).messages).toEqual([{ role: 'user', content: 'Which rivers?' }])
      hold.open()
      await asked
      expect(await state()).toBeUndefined()
    })

    test('what one model does not answer is left out, and said', async () => {
      const { ask } = await begin({ settings: { retries: 0 } })
      follow(({ stage, model }) => {
        if (stage === 'stage1' && model === 'beta') return { status: 500, error: 'x' }
        if (stage === 'stage2' && model === 'gamma') return { fault: 'garbage' }
        if (stage === 'stage2') return { text: 'I cannot rank these.' }
        return undefined
      })
      const { stage1, stage2, stage3, metadata } = await ask()
      expect(stage1.map(({ model }) => model)).toEqual(['alpha', 'gamma'])
      expect(stage2).toEqual([{ model: 'alpha', ranking: 'I cannot rank these.', parsed_ranking: [] }])
      expect(stage3.model).toBe('alpha')
      expect(metadata).toMatchObject({
        aggregate_rankings: [],
        failures: [
          { model: 'beta', stage: 'stage1', reason: 'it answered 500' },
          { model: 'gamma', stage: 'stage2', reason: 'what it answered is no completion' },
        ],
      })
    })

    test('the best-ranked model stands in for the chairman; without rankings, another that answered', async () => {
      const { ask } = await begin({ settings: { retries: 0, chairman: 'boss' } })
      follow(({ model }) => (model === 'boss' ? { fault: 'cut' } : undefined))
      expect((await ask()).stage3).toEqual({
        model: 'alpha',
        response: 'alpha concludes',
        chairman: 'boss',
        note: expect.stringContaining('boss is the chairman and gave no answer'),
      })
      follow(({ model, stage }) =>
        model === 'boss' || stage === 'stage2' ? { status: 500, error: 'x' } : undefined,
      )
      const { stage2, stage3 } = await ask('again')
      expect(stage2).toEqual([])
      expect(stage3.model).toBe('alpha')
    })

    test('one answer needs no ranking', async () => {
      const { ask } = await begin({ settings: { models: ['alpha'] } })
      const { stage2, metadata } = await ask()
      expect(stage2).toEqual([])
      expect(metadata).toMatchObject({ label_to_model: { 'Response A': 'alpha' }, aggregate_rankings: [] })
      expect(countAsked(server)).toEqual({ 'alpha stage1': 1, 'alpha stage3': 1, 'namer title': 1 })
    })

    test('when no model answers the question stays, and who asks again pays nothing', async () => {
      const { ask, read, used, told } = await begin({ settings: { retries: 0 } })
      follow(() => ({ status: 500, error: 'x' }))
      await expect(ask()).rejects.toMatchObject({
        code: 'unavailable',
        message: expect.stringContaining('beta: it answered 500'),
      })
      expect((await read()).messages).toEqual([{ role: 'user', content: 'Which rivers?' }])
      expect(told()).toEqual(['stage1_start'])
      follow(({ stage }) => (stage === 'stage3' ? { status: 500, error: 'x' } : undefined))
      await expect(ask()).rejects.toMatchObject({ code: 'unavailable' })
      follow()
      const { metadata } = await ask()
      expect(Object.keys(metadata ?? {}).sort()).toEqual(['aggregate_rankings', 'label_to_model', 'usage'])
      // stages 1 and 2 are there
      expect(countAsked(server)).toEqual({ 'alpha stage3': 1, 'namer title': 1 })
      expect((await read()).messages).toHaveLength(2)
      expect(await used()).toBe(1)
    })

    test('who gives up and asks again goes on, with what was spent', async () => {
      const { ask, used, told, events } = await begin()
      const hold = gate()
      follow(async ({ stage, model }) => {
        if (stage === 'stage2' && model === 'alpha') await hold.opened
        return undefined
      })
      const controller = new AbortController()
      const asked = ask(undefined, controller.signal)
      await expect.poll(() => events.at(-1)?.type, { timeout: 5_000 }).toBe('stage2_start')
      await expect.poll(() => countAsked(server)['gamma stage2'], { timeout: 5_000 }).toBe(1)
      await new Promise((resolve) => setTimeout(resolve, 100))
      controller.abort(new Error('had enough'))
      await expect(asked).rejects.toThrow('had enough')
      hold.open()
      follow()
      const { metadata } = await ask()
      expect(told().slice(3)).toEqual([...ALL, 'title_complete', 'complete'])
      expect(Object.keys(countAsked(server)).filter((name) => name.endsWith('stage1'))).toEqual([])
      const spentIn = (wanted: string) => metadata?.usage?.filter(({ stage }) => stage === wanted).length
      expect([spentIn('stage1'), spentIn('stage2')]).toEqual([3, 5])
      expect(await used()).toBe(1)
    })

    test('one question at a time: another is a conflict and costs nothing', async () => {
      const { ask, used, read } = await begin()
      const hold = gate()
      follow(async () => {
        await hold.opened
        return undefined
      })
      const refused: string[] = []
      const all = [ask(), ask(), ask('another')].map((one) =>
        one.catch(({ code }) => void refused.push(code)),
      )
      await expect.poll(() => refused, { timeout: 5_000 }).toEqual(['conflict', 'conflict'])
      hold.open()
      await Promise.all(all)
      expect(await used()).toBe(1)
      expect((await read()).messages).toHaveLength(2)
    })

    test('who may ask no more is refused, but goes on with what is paid for, and with nothing else', async () => {
      const { ask, scope, id, used, read } = await begin({ settings: { retries: 0 } })
      await opened.tb.usage.set(BY, scope.userId, { dailyLimit: 1 })
      follow(() => ({ status: 500, error: 'x' }))
      await expect(ask()).rejects.toMatchObject({ code: 'unavailable' })
      follow()
      await expect(ask('another')).rejects.toMatchObject({ code: 'quota_exceeded' })
      expect(server.requests).toEqual([])
      await ask()
      expect(await used()).toBe(1)
      // a question that came another way is not paid for
      await opened.tb.conversations.addUserMessage(scope, id, 'smuggled')
      follow()
      await expect(ask('smuggled')).rejects.toMatchObject({ code: 'quota_exceeded' })
      await expect(ask('smuggled')).rejects.toMatchObject({ code: 'quota_exceeded' })
      expect(server.requests).toEqual([])
      expect((await read()).messages).toHaveLength(3)
      await opened.tb.usage.set(BY, scope.userId, { dailyLimit: 2 })
      await ask('smuggled')
      expect(await used()).toBe(2)
    })

    test('without a key nothing is stored or counted', async () => {
      const { ask, used, read, council } = await begin({
        settings: { keys: { openrouter: undefined, openai: undefined } },
      })
      await expect(ask()).rejects.toMatchObject({
        code: 'unavailable',
        message: expect.stringContaining('OPENAI_API_KEY'),
      })
      expect(await used()).toBe(0)
      expect((await read()).messages).toEqual([])
      // a conversation that is not there is that, first
      await expect(council.ask({ userId: 'x' }, randomUUID(), 'q')).rejects.toMatchObject({
        code: 'not_found',
      })
    })

    test.runIf(isSql)("the user's own key is used first, at its endpoint", async () => {
      const { ask, scope } = await begin()
      await opened.tb.credentials.apiKeys.put(scope, BY, 'openai', { apiKey: 'sk-own' })
      await ask()
      expect(new Set(server.credentials)).toEqual(new Set(['Bearer sk-own']))
      await opened.tb.credentials.apiKeys.delete(scope, BY, 'openai')
      follow()
      await ask('again')
      expect(new Set(server.credentials)).toEqual(new Set([`Bearer ${KEY}`]))
      // OpenRouter's goes to OpenRouter's place alone, where nobody is
      await opened.tb.credentials.apiKeys.put(scope, BY, 'openrouter', { apiKey: 'sk-or' })
      follow()
      const other = newCouncil({ settings: { retries: 0 } })
      await expect(other.ask(scope, await newId(scope), 'third')).rejects.toMatchObject({
        code: 'unavailable',
      })
      expect(server.requests).toEqual([])
    })
    test('a key that no header can hold is not tried', async () => {
      const credentials = { forUser: () => ({ find: async () => 'sk\u2011own' }) }
      const { ask } = await begin({ credentials })
      await expect(ask()).rejects.toMatchObject({
        code: 'unavailable',
        message: expect.stringContaining('store it again'),
      })
      expect(server.requests).toEqual([])
    })
    const newId = async (scope: { userId: string }) =>
      (await opened.tb.conversations.createConversation(scope)).id

    test('what cannot be asked is refused', async () => {
      const { ask, council, scope, used } = await begin()
      for (const content of ['', ' \n', 'x'.repeat(1_000_001), 5 as never])
        await expect(ask(content)).rejects.toMatchObject({ code: 'invalid_input' })
      for (const id of ['../../etc/passwd', '', '.x'])
        await expect(council.ask(scope, id, 'q')).rejects.toMatchObject({ code: 'invalid_input' })
      expect(await used()).toBe(0)
    })

    test('a lease is kept for as long as the work takes', async () => {
      const hold = gate()
      const { ask, scope, id } = await begin({ leaseS: 1 })
      follow(async ({ stage }) => {
        if (stage === 'stage1') await hold.opened
        return undefined
      })
      const asked = ask()
      await new Promise((resolve) => setTimeout(resolve, 1_800))
      await expect(newCouncil().ask(scope, id, 'another')).rejects.toMatchObject({ code: 'conflict' })
      hold.open()
      await asked
    })

    test('work ends when its conversation is deleted', async () => {
      const { ask, scope, id, events } = await begin({ leaseS: 0.4 })
      follow(({ stage }) => (stage === 'stage1' ? { fault: 'hang' } : undefined))
      const asked = ask()
      asked.catch(() => {})
      await expect.poll(() => events.length, { timeout: 5_000 }).toBe(1)
      await opened.tb.conversations.deleteConversation(scope, id)
      const began = performance.now()
      await expect(asked).rejects.toMatchObject({ code: 'not_found' })
      expect(performance.now() - began).toBeLessThan(1_500)
    })

    test('a title that its user gave meanwhile stays', async () => {
      const hold = gate()
      const { ask, scope, id, told, read, events } = await begin()
      follow(async ({ stage }) => {
        if (stage === 'stage3') await hold.opened
        return undefined
      })
      const asked = ask()
      await expect.poll(() => events.at(-1)?.type, { timeout: 5_000 }).toBe('stage3_start')
      await opened.tb.conversations.updateConversationTitle(scope, id, 'Mine')
      hold.open()
      await asked
      expect(told()).toEqual([...ALL, 'complete'])
      expect((await read()).title).toBe('Mine')
    })

    test.each([
      ['the next model', ({ model }: { model: string }) => model === 'namer', 'About rivers'],
      ['the first words', ({ stage }: { stage: string }) => stage === 'title', 'Which rivers?'],
    ])('a title comes from %s when the model for it does not answer', async (_, fails, title) => {
      const { ask, read } = await begin()
      follow((asked) => (fails(asked) ? { status: 500, error: 'x' } : undefined))
      await ask()
      expect((await read()).title).toBe(title)
    })

    test('who listens cannot stop the work', async () => {
      const { council, scope, id, read } = await begin()
      const onEvent = () => {
        throw new Error('of the listener')
      }
      await council.ask(scope, id, 'q', { onEvent })
      expect((await read()).messages).toHaveLength(2)
    })

    test('closing keeps what there is for another server', async () => {
      const { ask, council, scope, id, used, events } = await begin()
      follow(({ stage }) => (stage === 'stage2' ? { fault: 'hang' } : undefined))
      const asked = ask()
      asked.catch(() => {})
      await expect.poll(() => events.at(-1)?.type, { timeout: 5_000 }).toBe('stage2_start')
      await council.close()
      await expect(asked).rejects.toMatchObject({
        code: 'unavailable',
        message: expect.stringContaining('shutting down'),
      })
      await expect(ask('more')).rejects.toMatchObject({ code: 'unavailable' })
      follow()
      await newCouncil().ask(scope, id, 'Which rivers?')
      expect(Object.keys(countAsked(server)).filter((name) => name.endsWith('stage1'))).toEqual([])
      expect(await used()).toBe(1)
    })
  })
}
