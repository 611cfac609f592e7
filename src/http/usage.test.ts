import { randomUUID } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { ACCOUNTS, bearer, newAccount } from '../../test/accounts.ts'
import { describeApi, INSTANT, refusal } from '../../test/http.ts'

describe('usage over HTTP', () => {
  describeApi('of the one user', (api) => {
    test('is read', async () => {
      await api.opened.tb.usage.consume({ userId: 'local' }, 2)
      const { status, body } = await api.call('GET', '/api/usage')
      expect([status, body]).toEqual([
        200,
        {
          user_id: 'local',
          tier: 'enterprise',
          daily_used: 2,
          daily_limit: null,
          monthly_used: 2,
          monthly_limit: null,
          total_queries: 2,
          daily_resets_at: expect.stringMatching(INSTANT),
          monthly_resets_at: expect.stringMatching(INSTANT),
        },
      ])
    })

    test('tokens and costs are summed', async () => {
      const scope = { userId: 'local' }
      const { id } = await api.opened.tb.threads.create(scope)
      const usage = [{ model: 'm', stage: 'stage1', input_tokens: 10, output_tokens: 5, cost: 0.25 }]
      await api.opened.tb.messages.append(scope, id, [
        { role: 'assistant', content: 'x', meta: { usage }, createdAt: '2026-01-31T12:00:00Z' },
      ])
      const url = '/api/usage/totals?since=2026-01-31&until=2026-01-31'
      expect((await api.call('GET', url)).body).toEqual({
        items: [{ day: '2026-01-31', model: 'm', calls: 1, input_tokens: 10, output_tokens: 5, cost: 0.25 }],
      })
      for (const query of [
        'since=x',
        'since=2026-02-30',
        'since=2020-01-01&until=2026-01-01',
        'from=2026-01-01',
      ])
        expect(refusal(await api.call('GET', `/api/usage/totals?${query}`)), query).toMatchObject({
          status: 400,
        })
    })
  })

  describeApi(
    'of users with accounts',
    (api) => {
      test('superusers give tiers and limits, also to who has no account yet', async () => {
        const { tb } = api.opened
        const [chief, user] = [await newAccount(tb, { isSuperuser: true }), await newAccount(tb)]
        const asChief = bearer(chief.tokens.accessToken)
        const asUser = bearer(user.tokens.accessToken)
        expect((await api.call('GET', '/api/usage', undefined, asUser)).body).toMatchObject({
          tier: 'free',
          daily_limit: 10,
        })
        for (const id of [user.id, `of-elsewhere|${randomUUID()}`]) {
          const url = `/api/admin/users/${encodeURIComponent(id)}/usage`
          expect(refusal(await api.call('PUT', url, { tier: 'pro' }, asUser))).toMatchObject({ status: 403 })
          const set = await api.call('PUT', url, { tier: 'pro', daily_limit: 7 }, asChief)
          expect([set.status, set.body]).toMatchObject([
            200,
            { user_id: id, tier: 'pro', daily_limit: 7, monthly_limit: 3_000 },
          ])
          expect((await api.call('GET', url, undefined, asChief)).body).toEqual(set.body)
          expect(
            (await api.call('PUT', url, { daily_limit: null, monthly_limit: -1 }, asChief)).body,
          ).toMatchObject({
            tier: 'pro',
            daily_limit: 100,
            monthly_limit: null,
          })
          const { items } = await tb.audit.list({ userId: id, action: 'tier_changed' })
          expect(items.map(({ actorId, target }) => [actorId, target])).toEqual([
            [chief.id, 'daily limit of the tier, monthly limit none'],
            [chief.id, 'tier pro, daily limit 7'],
          ])
          for (const wrong of [{ tier: 'gold' }, { daily_limit: -2 }, { dailyLimit: 1 }, { tier: null }])
            expect(refusal(await api.call('PUT', url, wrong, asChief)), JSON.stringify(wrong)).toMatchObject({
              status: 400,
            })
        }
      })
    },
    { auth: ACCOUNTS },
  )
})
