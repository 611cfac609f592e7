import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import { routeSchema } from '../core/http-shapes.ts'
import type { Database } from '../db/database.ts'
import { VERSION } from '../version.ts'

const Health = Type.Object({ status: Type.Literal('ok'), version: Type.String(), uptime_s: Type.Integer() })

// probes often send something against caches
const AnyQuery = Type.Object({})

const Ready = Type.Object({
  status: Type.Literal('ready'),
  store: Type.Enum(['postgres', 'pglite', 'json']),
  revision: Type.String({ description: 'Of the schema; `none` where there is no database.' }),
})

/** @param revision the schema's revision, when all migrations are there; else it throws `unavailable`. Not asked where there is no database */
export function healthRoutes(
  app: FastifyInstance,
  database: Database,
  revision: () => Promise<string>,
): void {
  app.get(
    '/health',
    {
      schema: routeSchema({
        operationId: 'getHealth',
        access: 'public',
        tags: ['service'],
        summary: 'Is the process up',
        querystring: AnyQuery,
        response: { 200: Health },
      }),
    },
    () => ({ status: 'ok', version: VERSION, uptime_s: Math.floor(process.uptime()) }),
  )
  app.get(
    '/ready',
    {
      schema: routeSchema({
        operationId: 'getReady',
        access: 'public',
        tags: ['service'],
        summary: 'Is the database reachable and migrated',
        querystring: AnyQuery,
        response: { 200: Ready },
      }),
    },
    async () => {
      if (database.engine === 'none') return { status: 'ready', store: 'json', revision: 'none' }
      await database.ping()
      return { status: 'ready', store: database.engine, revision: await revision() }
    },
  )
}
