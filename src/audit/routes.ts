import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import { Nullable, Uuid } from '../core/fields.ts'
import { asHttp, fromHttp, Instant, PageOf, pageToHttp, routeSchema } from '../core/http-shapes.ts'
import { AUDIT_ACTIONS, AuditQuery } from './schema.ts'
import type { AuditService } from './service.ts'

const EntryBody = Type.Object({
  id: Uuid(),
  user_id: Type.String({ description: 'Whose account or data it is about.' }),
  at: Instant(),
  actor_id: Type.String({ description: 'Who did it.' }),
  via: Type.String({ description: 'How the actor was known.' }),
  action: Type.Enum([...AUDIT_ACTIONS]),
  target: Nullable(Type.String({ description: 'The record; null for the account itself.' })),
  address: Nullable(Type.String()),
  request_id: Nullable(Type.String()),
})

/** `/api/admin/audit`: the audit log, for superusers. */
export function auditRoutes(app: FastifyInstance, audit: AuditService): void {
  app.get(
    '/api/admin/audit',
    {
      schema: routeSchema({
        operationId: 'listAuditLog',
        access: 'admin',
        tags: ['admin'],
        summary: 'List who did what, newest first',
        querystring: asHttp(AuditQuery),
        response: { 200: PageOf(EntryBody) },
      }),
    },
    async ({ query }) => pageToHttp(await audit.list(fromHttp<AuditQuery>(query))),
  )
}
