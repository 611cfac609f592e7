import { randomUUID } from 'node:crypto'
import { rm } from 'node:fs/promises'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, makeTempDir, TEST_USAGE } from '../../test/harness.ts'
import type { Actor, AuditAction } from '../audit/schema.ts'
import { createJsonUsage, type UsageMessage } from './json/service.ts'
import type { Usage, UsagePatch, UsageRecord, UsageService, UsageSettings } from './schema.ts'
import { createUsageService } from './service.ts'

type Audited = [actor: string, action: AuditAction, about: string, target: string | undefined]
type Store = {
  make(settings?: UsageSettings, clock?: () => Date): UsageService
  /** Stores what a council answered, for totals. */
  say(userId: string, messages: UsageMessage[]): Promise<void>
  close(): Promise<void>
}
type Parts = { audit: { record(...entry: unknown[]): Promise<void> }; clock: () => Date }

const stores: { name: string; available: boolean; open(parts: Parts): Promise<Store> }[] = [
  ...engines.map(({ name, available, open }) => ({
    name: `rows of ${name}`,
    available,
    open: async ({ audit, clock }: Parts) => {
      const { database, tb, close } = await open()
      const parts = { audit: audit as never, clock }
      return {
        make: (settings = TEST_USAGE, clock = parts.clock) =>
          createUsageService(database, { ...parts, settings, clock }),
        say: async (userId: string, messages: UsageMessage[]) => {
          const { id } = await tb.threads.create({ userId })
          const given = messages.map(({ createdAt, meta }) => ({
            role: 'assistant' as const,
            content: 'x',
            meta,
            createdAt: createdAt.toISOString(),
          }))
          await tb.messages.append({ userId }, id, given)
        },
        close,
      }
    },
  })),
  {
    name: 'JSON files',
    available: true,
    open: async ({ audit, clock: now }) => {
      const dir = await makeTempDir()
      const said = new Map<string, UsageMessage[]>()
      const messagesOf = async function* ({ userId }: { userId: string }) {
        yield* said.get(userId) ?? []
      }
      return {
        make: (settings = TEST_USAGE, clock = now) =>
          createJsonUsage({ dir, settings, audit: audit as never, messagesOf, clock }),
        say: async (userId, messages) => void said.set(userId, messages),
        close: () => rm(dir, { recursive: true, force: true }),
      }
    },
  },
]

const BY: Actor = { userId: 'chief', via: 'library' }
const newScope = () => ({ userId: `u-${randomUUID()}` })
const NOON = '2026-01-31T12:00:00.000Z'
const EXCEEDED = { code: 'quota_exceeded' }

for (const { name, available, open } of stores) {
  describe.skipIf(!available)(`usage in ${name}`, () => {
    let store: Store
    let usage: UsageService
    let now = new Date(NOON)
    const audited: Audited[] = []
    const at = (time: string) => {
      now = new Date(time)
    }
    beforeAll(async () => {
      const record = async (actor: unknown, ...rest: unknown[]) =>
        void audited.push([(actor as Actor).userId, ...rest] as Audited)
      store = await open({ audit: { record }, clock: () => now })
      usage = store.make()
    })
    afterAll(() => store?.close())

    test('of a user who never asked is 0 in the default tier, and no trace is left of having looked', async () => {
      at(NOON)
      const scope = newScope()
      expect(await usage.read(scope)).toEqual({
        userId: scope.userId,
        tier: 'free',
        dailyUsed: 0,
        dailyLimit: 10,
        monthlyUsed: 0,
        monthlyLimit: 100,
        totalQueries: 0,
        dailyResetsAt: new Date('2026-02-01'),
        monthlyResetsAt: new Date('2026-02-01'),
      })
      for await (const { userId } of usage.records()) expect(userId).not.toBe(scope.userId)
    })

    test('counts, and refuses what is too much with all that there is to say', async () => {
      at('2026-01-15T23:59:30.400Z')
      const scope = newScope()
      const { usage: first, receipt } = await usage.consume(scope)
      expect(first).toMatchObject({ dailyUsed: 1, monthlyUsed: 1, totalQueries: 1 })
      expect(receipt).toEqual({ n: 1, day: '2026-01-15', month: '2026-01-01' })
      expect(await usage.read(scope)).toEqual(first)
      expect((await usage.consume(scope, 9)).usage).toMatchObject({ dailyUsed: 10, totalQueries: 10 })
      const refused = usage.consume(scope)
      await expect(refused).rejects.toThrow(/10 questions a day/)
      await expect(refused).rejects.toMatchObject({
        ...EXCEEDED,
        details: {
          limit: 'daily',
          retryAfterS: 30,
          asked: 1,
          resetsAt: new Date('2026-01-16'),
          tier: 'free',
          dailyUsed: 10,
          dailyLimit: 10,
          monthlyUsed: 10,
          monthlyLimit: 100,
        },
      })
      expect(await usage.read(scope)).toMatchObject({ dailyUsed: 10, totalQueries: 10 })
    })

    test('the limit of the month is named when both are in the way, and turns with the month', async () => {
      at('2026-02-01T10:00:00Z')
      const scope = newScope()
      await usage.set(BY, scope.userId, { dailyLimit: 3, monthlyLimit: 3 })
      await usage.consume(scope, 3)
      const details = {
        limit: 'monthly',
        retryAfterS: 28 * 86_400 - 36_000,
        resetsAt: new Date('2026-03-01'),
      }
      await expect(usage.consume(scope)).rejects.toMatchObject({ ...EXCEEDED, details })
      at('2026-02-28T23:59:59.999Z')
      await expect(usage.consume(scope)).rejects.toMatchObject({
        details: { limit: 'monthly', retryAfterS: 1 },
      })
      at('2026-03-01T00:00:00.000Z')
      expect(await usage.read(scope)).toMatchObject({ dailyUsed: 0, monthlyUsed: 0, totalQueries: 3 })
      expect((await usage.consume(scope)).usage).toMatchObject({
        dailyUsed: 1,
        monthlyUsed: 1,
        totalQueries: 4,
      })
    })

    test('days turn at midnight of UTC, months and years with them', async () => {
      const scope = newScope()
      for (const [time, dailyUsed, monthlyUsed] of [
        ['2027-12-30T23:59:59.999Z', 10, 10],
        ['2027-12-31T00:00:00.000Z', 10, 20],
        ['2028-01-01T00:00:00.000Z', 10, 10],
        // the same day of another month
        ['2028-02-01T00:00:00.000Z', 10, 10],
        ['2029-02-01T00:00:00.000Z', 10, 10],
      ] as const) {
        at(time)
        expect((await usage.consume(scope, 10)).usage).toMatchObject({ dailyUsed, monthlyUsed })
        await expect(usage.consume(scope)).rejects.toMatchObject(EXCEEDED)
      }
      expect(await usage.read(scope)).toMatchObject({ totalQueries: 50 })
    })

    test('who saw the clock before midnight and comes after the first of the new day counts on that', async () => {
      const scope = newScope()
      at('2026-02-01T00:00:00.001Z')
      await usage.consume(scope, 9)
      at('2026-01-31T23:59:59.999Z')
      const { usage: late, receipt } = await usage.consume(scope)
      expect(late).toMatchObject({ dailyUsed: 10, monthlyUsed: 10, dailyResetsAt: new Date('2026-02-02') })
      expect(receipt).toMatchObject({ day: '2026-02-01', month: '2026-02-01' })
      await expect(usage.consume(scope)).rejects.toMatchObject({ details: { limit: 'daily' } })
    })

    test('64 at once on a limit of 10: exactly 10 get through', async () => {
      at(NOON)
      const scope = newScope()
      const all = await Promise.allSettled(Array.from({ length: 64 }, () => usage.consume(scope)))
      const counted = all.flatMap((one) => (one.status === 'fulfilled' ? one.value.usage.dailyUsed : []))
      expect(counted.sort((a, b) => a - b)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
      for (const one of all) if (one.status === 'rejected') expect(one.reason).toMatchObject(EXCEEDED)
      expect(await usage.read(scope)).toMatchObject({ dailyUsed: 10, monthlyUsed: 10, totalQueries: 10 })
    })

    test('many at once as a new day begins: no more than its limit, and none of the day before', async () => {
      at('2026-05-04T12:00:00Z')
      const scope = newScope()
      await usage.consume(scope, 10)
      const servers = ['2026-05-04T23:59:59.9Z', '2026-05-05T00:00:00Z'].map((time) =>
        store.make(TEST_USAGE, () => new Date(time)),
      ) as [UsageService, UsageService]
      const all = await Promise.allSettled(
        Array.from({ length: 40 }, (_, i) => servers[i % 2 === 0 ? 1 : 0].consume(scope)),
      )
      expect(all.filter(({ status }) => status === 'fulfilled')).toHaveLength(10)
      at('2026-05-05T00:00:00Z')
      expect(await usage.read(scope)).toMatchObject({ dailyUsed: 10, monthlyUsed: 20, totalQueries: 20 })
    })

    test('more than the limit itself is refused, also to who is new', async () => {
      at(NOON)
      for (const scope of [newScope(), { userId: 'local-not' }]) {
        await expect(usage.consume(scope, 11)).rejects.toMatchObject({ ...EXCEEDED, details: { asked: 11 } })
        expect(await usage.read(scope)).toMatchObject({ totalQueries: 0 })
      }
      const rich = newScope()
      await usage.set(BY, rich.userId, { tier: 'pro' })
      expect((await usage.consume(rich, 100)).usage).toMatchObject({ dailyUsed: 100 })
    })

    test.each([0, -1, 1.5, Number.NaN, 1_000_001, '1', null])('%j is no number of questions', async (n) => {
      await expect(usage.consume(newScope(), n as number)).rejects.toMatchObject({ code: 'invalid_input' })
    })

    test('the user of a machine of their own has no limits, unless somebody sets some', async () => {
      at(NOON)
      const local = { userId: 'local' }
      expect(await usage.read(local)).toMatchObject({
        tier: 'enterprise',
        dailyLimit: null,
        monthlyLimit: null,
      })
      for (let i = 0; i < 3; i++) await usage.consume(local, 1_000)
      expect(await usage.set(BY, 'local', { tier: 'free' })).toMatchObject({
        dailyLimit: 10,
        dailyUsed: 3_000,
      })
      await expect(usage.consume(local)).rejects.toMatchObject(EXCEEDED)
    })

    test('what is given back is gone from the day and month that it was counted on', async () => {
      at('2026-01-31T23:59:59Z')
      const scope = newScope()
      const { receipt } = await usage.consume(scope, 4)
      await usage.consume(scope)
      await usage.refund(scope, receipt)
      expect(await usage.read(scope)).toMatchObject({ dailyUsed: 1, monthlyUsed: 1, totalQueries: 1 })
      await usage.refund(scope, receipt)
      expect(await usage.read(scope)).toMatchObject({ dailyUsed: 0, monthlyUsed: 0, totalQueries: 0 })
    })

    test('after midnight what is given back leaves the new day alone, and the month while it lasts', async () => {
      at('2026-01-30T23:59:59Z')
      const scope = newScope()
      const { receipt } = await usage.consume(scope, 4)
      at('2026-01-31T00:00:00Z')
      const second = await usage.consume(scope, 2)
      await usage.refund(scope, receipt)
      expect(await usage.read(scope)).toMatchObject({ dailyUsed: 2, monthlyUsed: 2, totalQueries: 2 })
      at('2026-02-01T00:00:00Z')
      await usage.consume(scope, 3)
      await usage.refund(scope, second.receipt)
      expect(await usage.read(scope)).toMatchObject({ dailyUsed: 3, monthlyUsed: 3, totalQueries: 3 })
    })

    test('what nobody counted cannot be given back', async () => {
      at(NOON)
      const scope = newScope()
      await usage.refund(scope, { n: 3, day: '2026-01-31', month: '2026-01-01' })
      expect(await usage.read(scope)).toMatchObject({ dailyUsed: 0, totalQueries: 0 })
      for (const wrong of [{ n: -1, day: '2026-01-31', month: '2026-01-01' }, { n: 1 }, undefined])
        await expect(usage.refund(scope, wrong as never)).rejects.toMatchObject({ code: 'invalid_input' })
    })

    test('a tier gives its limits, limits of their own come before them, and the audit log has it', async () => {
      at(NOON)
      const scope = newScope()
      audited.length = 0
      const set = (patch: UsagePatch) => usage.set(BY, scope.userId, patch)
      expect(await set({ tier: 'pro' })).toMatchObject({ tier: 'pro', dailyLimit: 100, monthlyLimit: 3_000 })
      expect(await set({ dailyLimit: 5 })).toMatchObject({ tier: 'pro', dailyLimit: 5, monthlyLimit: 3_000 })
      expect(await set({ tier: 'free', monthlyLimit: -1 })).toMatchObject({
        tier: 'free',
        dailyLimit: 5,
        monthlyLimit: null,
      })
      await usage.consume(scope, 5)
      await expect(usage.consume(scope)).rejects.toMatchObject({ details: { limit: 'daily', dailyLimit: 5 } })
      expect(await set({ dailyLimit: null, monthlyLimit: null })).toMatchObject({
        tier: 'free',
        dailyUsed: 5,
        dailyLimit: 10,
        monthlyLimit: 100,
      })
      expect(await set({ dailyLimit: 0 })).toMatchObject({ dailyLimit: 0 })
      await expect(usage.consume(scope)).rejects.toMatchObject({ details: { limit: 'daily' } })
      expect(await set({ tier: 'enterprise', dailyLimit: null })).toMatchObject({
        dailyLimit: null,
        monthlyLimit: null,
      })
      await usage.consume(scope, 1_000)
      const about = (target: string) => ['chief', 'tier_changed', scope.userId, target]
      expect(audited).toEqual([
        about('tier pro'),
        about('daily limit 5'),
        about('tier free, monthly limit none'),
        about('daily limit of the tier, monthly limit of the tier'),
        about('daily limit 0'),
        about('tier enterprise, daily limit of the tier'),
      ])
    })

    test.each([
      { tier: 'gold' },
      { tier: '' },
      { dailyLimit: -2 },
      { dailyLimit: 1.5 },
      { monthlyLimit: 2 ** 31 },
      { limit: 1 },
    ])('%j is refused as limits', async (patch) => {
      const { userId } = newScope()
      await expect(usage.set(BY, userId, patch as UsagePatch)).rejects.toMatchObject({
        code: 'invalid_input',
      })
      await expect(usage.set(BY, '', { tier: 'pro' })).rejects.toMatchObject({ code: 'invalid_input' })
    })

    test('a tier that is not configured any more is the default one', async () => {
      at(NOON)
      const scope = newScope()
      await usage.set(BY, scope.userId, { tier: 'pro' })
      await usage.consume(scope, 2)
      const tiers = new Map([['basic', { daily: 3, monthly: null }]])
      const later = store.make({ tiers, defaultTier: 'basic', localTier: 'basic' })
      expect(await later.read(scope)).toMatchObject({ tier: 'basic', dailyUsed: 2, monthlyUsed: 2 })
      await usage.set(BY, scope.userId, { dailyLimit: -1 })
      expect((await later.consume(scope)).usage).toMatchObject({ tier: 'basic', dailyLimit: null })
    })

    test('counters are brought over for those who have none, and come back as they were', async () => {
      at(NOON)
      const [kept, moved, bare, old] = [newScope(), newScope(), newScope(), newScope()]
      await usage.consume(kept, 7)
      const record: UsageRecord = {
        tier: 'free',
        dailyUsed: 5,
        dailyLimit: 10,
        monthlyUsed: 50,
        monthlyLimit: 70,
        totalQueries: 150,
        lastResetDaily: '2026-01-31',
        lastResetMonthly: '2026-01-15',
      }
      const none = {
        tier: null,
        dailyLimit: null,
        monthlyLimit: null,
        lastResetDaily: null,
        lastResetMonthly: null,
      }
      const records = new Map<string, UsageRecord>([
        [kept.userId, record],
        [moved.userId, record],
        [bare.userId, { ...record, ...none }],
        [
          old.userId,
          { ...record, tier: 'gold', lastResetDaily: '2025-01-31', lastResetMonthly: '2025-01-31' },
        ],
      ])
      const imported = await usage.importRecords(records)
      expect(imported.sort()).toEqual([moved.userId, bare.userId, old.userId].sort())
      expect(await usage.importRecords(records)).toEqual([])
      expect(await usage.importRecords(new Map())).toEqual([])
      expect(await usage.read(kept)).toMatchObject({ dailyUsed: 7, monthlyLimit: 100 })
      expect(await usage.read(moved)).toMatchObject({
        dailyUsed: 5,
        monthlyUsed: 50,
        totalQueries: 150,
        dailyLimit: 10,
        monthlyLimit: 70,
      })
      expect(await usage.read(bare)).toMatchObject({
        tier: 'free',
        dailyUsed: 0,
        monthlyUsed: 0,
        totalQueries: 150,
      })
      expect(await usage.read(old)).toMatchObject({
        tier: 'free',
        dailyUsed: 0,
        monthlyUsed: 0,
        monthlyLimit: 70,
      })
      const back = new Map<string, UsageRecord>()
      for await (const { userId, record } of usage.records()) back.set(userId, record)
      expect(back.get(moved.userId)).toEqual(record)
      expect(back.get(old.userId)).toEqual(records.get(old.userId))
      expect(back.get(bare.userId)).toMatchObject({
        tier: 'free',
        dailyLimit: 10,
        lastResetDaily: '1970-01-01',
      })
      // a limit that was the tier's is the tier's
      expect(await usage.set(BY, moved.userId, { tier: 'pro' })).toMatchObject({
        dailyLimit: 100,
        monthlyLimit: 70,
      })
      expect((await usage.consume(moved)).usage).toMatchObject({
        dailyUsed: 6,
        monthlyUsed: 51,
        totalQueries: 151,
      })
    })

    test('tokens and costs are summed by day and model, in every spelling', async () => {
      at('2026-03-02T12:00:00Z')
      const scope = newScope()
      const call = (model: string, input: number, output: number, cost?: number) => ({
        model,
        input_tokens: input,
        output_tokens: output,
        ...(cost === undefined ? {} : { cost }),
      })
      const said = (time: string, meta: Record<string, unknown>) => ({ createdAt: new Date(time), meta })
      await store.say(scope.userId, [
        said('2026-02-28T23:59:59.999Z', { usage: [call('a', 1, 2, 0.1)] }),
        said('2026-03-01T00:00:00Z', { usage: [call('a', 10, 20, 0.1), call('b', 1, 1)] }),
        said('2026-03-01T08:00:00Z', { usage: [call('a', 10, 20, 0.2), call('a', 1, 1)] }),
        said('2026-03-01T09:00:00Z', {
          usage: { model: 'b', prompt_tokens: 5, completion_tokens: 6, cost: 0.000001 },
        }),
        said('2026-03-01T10:00:00Z', {
          usage_metadata: { input_tokens: 7, output_tokens: 8, total_tokens: 15 },
          response_metadata: { model_name: 'c' },
        }),
        said('2026-03-01T11:00:00Z', {
          usage: [{ model: 'c', usage_metadata: { input_tokens: 1, output_tokens: 1 } }],
        }),
        said('2026-03-01T12:00:00Z', { usage: { input_tokens: 3, output_tokens: 4 }, model: 'd\0\ud800' }),
        said('2026-03-02T00:00:00Z', { usage: [{}] }),
        said('2026-03-02T00:00:01Z', {
          usage: [
            null,
            1,
            'x',
            [call('a', 1, 1)],
            { model: 1, input_tokens: '5', output_tokens: -3, cost: -1 },
          ],
        }),
        said('2026-03-02T00:00:02Z', {
          usage: [{ model: 'e', input_tokens: 1e300, output_tokens: 2.9, cost: 1e-9 }],
        }),
        ...[null, 'x', 7, [], true].map((usage) => said('2026-03-02T00:00:03Z', { usage })),
        said('2026-03-02T00:00:04Z', { other: call('a', 1, 1) }),
      ])
      const total = (
        day: string,
        model: string | null,
        calls: number,
        inputTokens: number,
        outputTokens: number,
        cost: number | null = null,
      ) => ({ day, model, calls, inputTokens, outputTokens, cost })
      const march1 = [
        total('2026-03-01', 'a', 3, 21, 41, 0.3),
        total('2026-03-01', 'b', 2, 6, 7, 0.000001),
        total('2026-03-01', 'c', 2, 8, 9),
        total('2026-03-01', 'd\0\ud800', 1, 3, 4),
      ]
      const march2 = [total('2026-03-02', 'e', 1, 0, 2, 1e-9), total('2026-03-02', null, 2, 0, 0)]
      const february = [total('2026-02-28', 'a', 1, 1, 2, 0.1)]
      expect(await usage.totals(scope)).toEqual([...march2, ...march1, ...february])
      expect(await usage.totals(scope, { since: '2026-03-01', until: '2026-03-01' })).toEqual(march1)
      expect(await usage.totals(scope, { until: '2026-02-28' })).toEqual(february)
      expect(await usage.totals(newScope())).toEqual([])
    })

    test.each([
      { since: '2025-01-01', until: '2026-01-02' },
      { since: '2026-02-30' },
      { until: '9999-12-31' },
      { until: '0000-01-01' },
      { since: 'yesterday' },
      { from: '2026-01-01' },
    ])('%j are no days to sum', async (query) => {
      await expect(usage.totals(newScope(), query)).rejects.toMatchObject({ code: 'invalid_input' })
    })

    test.each([undefined, {}, { userId: '' }, { userId: 'a\0b' }])('%j is nobody', async (scope) => {
      const problem = { code: 'invalid_input' }
      for (const call of [usage.consume, usage.read, usage.totals])
        await expect(call(scope as never)).rejects.toMatchObject(problem)
    })

    test('does what a simple model does, whatever happens in whatever order', async () => {
      const steps = fc.array(
        fc.oneof(
          fc.record({ do: fc.constant('consume' as const), n: fc.integer({ min: 1, max: 6 }) }),
          fc.record({ do: fc.constant('refund' as const), which: fc.nat(20) }),
          fc.record({ do: fc.constant('wait' as const), hours: fc.integer({ min: 1, max: 400 }) }),
          fc.record({
            do: fc.constant('set' as const),
            patch: fc.record(
              {
                tier: fc.constantFrom('free', 'pro', 'enterprise'),
                dailyLimit: fc.constantFrom(null, -1, 0, 7),
                monthlyLimit: fc.constantFrom(null, -1, 15),
              },
              { requiredKeys: [] },
            ),
          }),
        ),
        { maxLength: 25 },
      )
      await fc.assert(
        fc.asyncProperty(steps, async (all) => {
          const scope = newScope()
          const model = createModel({ inFile: name.includes('JSON') })
          const receipts: [Awaited<ReturnType<UsageService['consume']>>['receipt'], Counted][] = []
          let hours = 0
          for (const step of all) {
            at(new Date(Date.parse(NOON) + hours * 3_600_000).toISOString())
            if (step.do === 'wait') hours += step.hours
            if (step.do === 'set') {
              await usage.set(BY, scope.userId, step.patch)
              model.set(step.patch)
            }
            if (step.do === 'consume') {
              const counted = model.consume(now, step.n)
              const outcome = await usage.consume(scope, step.n).catch((error) => error)
              expect('receipt' in outcome).toBe(counted !== undefined)
              if (counted !== undefined) receipts.push([outcome.receipt, counted])
            }
            if (step.do === 'refund') {
              const [receipt, counted] =
                receipts.splice(step.which % Math.max(receipts.length, 1), 1)[0] ?? []
              if (receipt === undefined || counted === undefined) continue
              await usage.refund(scope, receipt)
              model.refund(counted)
            }
            expect(await usage.read(scope)).toMatchObject(model.read(now))
          }
        }),
        { numRuns: name.includes('JSON') ? 15 : 40 },
      )
    })
  })
}

type Counted = { day: string; n: number }

/** A list of what was counted, and nothing else. A limit in a file that is the tier's changes with the tier. */
function createModel({ inFile }: { inFile: boolean }) {
  let counted: Counted[] = []
  let tier = 'free'
  const own: { dailyLimit: number | null; monthlyLimit: number | null } = {
    dailyLimit: null,
    monthlyLimit: null,
  }
  const sum = (beginning: string) =>
    counted.filter(({ day }) => day.startsWith(beginning)).reduce((all, { n }) => all + n, 0)
  const limit = (mine: number | null, ofTier: number | null | undefined) =>
    mine === null ? (ofTier ?? null) : mine === -1 ? null : mine
  const read = (now: Date): Partial<Usage> => {
    const day = now.toISOString().slice(0, 10)
    const { daily, monthly } = TEST_USAGE.tiers.get(tier) ?? {}
    return {
      tier,
      dailyUsed: sum(day),
      monthlyUsed: sum(day.slice(0, 7)),
      totalQueries: sum(''),
      dailyLimit: limit(own.dailyLimit, daily),
      monthlyLimit: limit(own.monthlyLimit, monthly),
    }
  }
  return {
    read,
    set(patch: UsagePatch) {
      const { daily, monthly } = TEST_USAGE.tiers.get(tier) ?? {}
      if (inFile && own.dailyLimit === (daily ?? -1)) own.dailyLimit = null
      if (inFile && own.monthlyLimit === (monthly ?? -1)) own.monthlyLimit = null
      tier = patch.tier ?? tier
      if (patch.dailyLimit !== undefined) own.dailyLimit = patch.dailyLimit
      if (patch.monthlyLimit !== undefined) own.monthlyLimit = patch.monthlyLimit
    },
    consume(now: Date, n: number): Counted | undefined {
      const { dailyUsed = 0, monthlyUsed = 0, dailyLimit, monthlyLimit } = read(now)
      const fits = (used: number, most?: number | null) => most === null || used + n <= (most ?? 0)
      if (!fits(dailyUsed, dailyLimit) || !fits(monthlyUsed, monthlyLimit)) return undefined
      const one = { day: now.toISOString().slice(0, 10), n }
      counted.push(one)
      return one
    },
    refund(one: Counted) {
      counted = counted.filter((other) => other !== one)
    },
  }
}
