import type { FastifyInstance, FastifyRequest, RouteOptions } from 'fastify'
import { type TObject, Type } from 'typebox'
import type { AuditService } from '../audit/service.ts'
import { isUuid } from '../core/ids.ts'
import { userOf } from '../core/scope.ts'
import { actorOf } from '../identity/service.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Whether what a GET reads is the user's: then superusers may read any user's. Default true. */
    ofUser?: boolean
  }
}

const OWN = '/api/'
const ANY_USERS = '/api/admin/users/:user/'
const User = Type.String({ minLength: 1, maxLength: 255, description: 'Id of the user.' })

type Schema = Record<string, unknown> & { operationId?: string; summary?: string; params?: TObject }

/**
 * For each route by which users read what is theirs, `GET /api/…`, one by which superusers read the same of any user,
 * `GET /api/admin/users/{user}/…`: the same handler with that user's scope. Every such read is in the audit log before
 * it happens. Routes that are added before `end` is called get one.
 */
export function mirrorReads(app: FastifyInstance, audit: AuditService): { end(): void } {
  const found: RouteOptions[] = []
  let open = true
  app.addHook('onRoute', (route) => {
    const { method, url, config } = route
    if (!open || method !== 'GET' || !url.startsWith(OWN)) return
    if (config?.access === 'read' && config.ofUser !== false) found.push(route)
  })
  const enter = async (request: FastifyRequest) => {
    const { user, ...params } = request.params as Record<string, string>
    await audit.record(
      actorOf(request),
      'data_read',
      userOf({ userId: String(user) }),
      pathOf(request, params),
    )
    request.scope = { userId: String(user) }
  }
  return {
    end() {
      open = false
      for (const route of found) app.route(twinOf(route, enter))
    },
  }
}

/** What is read, from the route: what the client wrote may be spelt in other ways, UUIDs too. */
function pathOf({ routeOptions }: FastifyRequest, params: Record<string, string>): string {
  const path = routeOptions.url?.slice(ANY_USERS.length) ?? ''
  return path.replace(/:(\w+)/g, (_, name: string) => {
    const value = String(params[name])
    return isUuid(value) ? value.toLowerCase() : value
  })
}

function twinOf(route: RouteOptions, enter: (request: FastifyRequest) => Promise<void>): RouteOptions {
  const schema = route.schema as Schema
  const { operationId = '', summary, params } = schema
  const { access: _, ...config } = route.config ?? {}
  return {
    method: 'GET',
    url: ANY_USERS + route.url.slice(OWN.length),
    handler: route.handler,
    config,
    exposeHeadRoute: false,
    schema: {
      ...schema,
      'x-access': 'admin',
      operationId: `adminOf${operationId[0]?.toUpperCase()}${operationId.slice(1)}`,
      tags: ['admin'],
      summary: `${summary}, of any user`,
      params: Type.Object({ user: User, ...params?.properties }),
    } as RouteOptions['schema'],
    preHandler: enter,
  }
}
