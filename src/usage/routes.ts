import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import { snakeKeys } from '../core/case.ts'
import { Nullable } from '../core/fields.ts'
import { asHttp, fromHttp, Instant, routeSchema } from '../core/http-shapes.ts'
import { actorOf } from '../identity/service.ts'
import { TotalsQuery, type Usage, UsagePatch } from './schema.ts'
import type { UsageService } from './service.ts'

const Limit = Nullable(Type.Integer({ description: 'Null: no limit.' }))

const UsageBody = Type.Object({
  user_id: Type.String(),
  tier: Type.String(),
  daily_used: Type.Integer(),
  daily_limit: Limit,
  monthly_used: Type.Integer(),
  monthly_limit: Limit,
  total_queries: Type.Integer({ description: 'Ever.' }),
  daily_resets_at: Instant('00:00 UTC of the next day.'),
  monthly_resets_at: Instant('00:00 UTC of the first day of the next month.'),
})

const TotalsBody = Type.Object({
  items: Type.Array(
    Type.Object({
      day: Type.String({ description: 'UTC.', examples: ['2026-01-31'] }),
      model: Nullable(Type.String({ description: 'Null: not named.' })),
      calls: Type.Integer(),
      input_tokens: Type.Integer(),
      output_tokens: Type.Integer(),
      cost: Nullable(Type.Number({ description: 'US dollars; null when no call says what it cost.' })),
    }),
  ),
})

const tags = ['usage']

const toBody = (usage: Usage) => snakeKeys(usage)

/** `/api/usage`: the caller's own. */
export function usageRoutes(app: FastifyInstance, usage: UsageService): void {
  app.get(
    '/api/usage',
    {
      schema: routeSchema({
        operationId: 'getUsage',
        tags,
        summary: 'Read how much was asked, and may be',
        response: { 200: UsageBody },
      }),
    },
    async ({ scope }) => toBody(await usage.read(scope)),
  )

  app.get(
    '/api/usage/totals',
    {
      schema: routeSchema({
        operationId: 'getUsageTotals',
        tags,
        summary: 'Read tokens and costs by day and model, newest day first',
        querystring: asHttp(TotalsQuery),
        response: { 200: TotalsBody },
      }),
    },
    async ({ scope, query }) => {
      const totals = await usage.totals(scope, fromHttp<TotalsQuery>(query))
      return { items: totals.map((total) => snakeKeys(total)) }
    },
  )
}

type ByUser = { Params: { user: string } }

/** `/api/admin/users/{user}/usage`, for superusers, who read it as they read all else of a user. */
export function usageAdminRoutes(app: FastifyInstance, usage: UsageService): void {
  app.put<ByUser>(
    '/api/admin/users/:user/usage',
    {
      schema: routeSchema({
        operationId: 'setUsage',
        access: 'admin',
        tags: ['admin'],
        summary: 'Give a user a tier, or limits of their own',
        description: 'What is not given stays. The user need not have an account here.',
        params: Type.Object({
          user: Type.String({ minLength: 1, maxLength: 255, description: 'Id of the user.' }),
        }),
        body: asHttp(UsagePatch),
        response: { 200: UsageBody },
      }),
    },
    async (request) => {
      const patch = fromHttp<UsagePatch>(request.body)
      return toBody(await usage.set(actorOf(request), request.params.user, patch))
    },
  )
}
