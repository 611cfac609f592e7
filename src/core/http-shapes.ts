import { type TObject, type TSchema, Type } from 'typebox'
import { camelKeys, snakeKeys, snakeSchema } from './case.ts'
import { closed, Uuid } from './fields.ts'
import type { Page } from './pages.ts'

/** The path of one thing. */
export const IdPath = (description: string) => Type.Object({ id: Uuid({ description }) })

export const Instant = (description?: string) => Type.String({ format: 'date-time', description })

/** A page of a list as HTTP gives it. */
export const PageOf = (item: TSchema) =>
  Type.Object({ items: Type.Array(item), next_cursor: Type.Union([Type.String(), Type.Null()]) })

/** Query parameters and bodies: the library's schema with snake_case names. */
export const asHttp = (schema: TObject) => snakeSchema(schema)

/** A validated body or query in the library's spelling. The route's schema has checked its shape. */
export function fromHttp<T>(value: unknown): T {
  return camelKeys((value ?? {}) as object) as T
}

/** A page with the items' keys in snake_case; `next_cursor` is null on the last page. */
export function pageToHttp<T extends object>({ items, nextCursor }: Page<T>) {
  return { items: items.map((item) => snakeKeys(item)), next_cursor: nextCursor ?? null }
}

/**
 * Who may call a route. `public`: anybody. `read`, `write`: any user, and an API key with that scope. `ingest`: an API key
 * with that scope, superusers, and anybody in single-user mode.
 * `account`: what a user does with their own account, and a key with the scope `admin`. `admin`: superusers, and a key of
 * theirs with the scope `admin`. `metrics`: the same, whoever has METRICS_TOKEN, and anybody in single-user mode.
 */
export const ACCESS = ['public', 'read', 'write', 'ingest', 'account', 'admin', 'metrics'] as const
export type Access = (typeof ACCESS)[number]

type RouteSchema = {
  /** Default: `read` for GET, `write` for all else. */
  access?: Access
  /** Names the call in clients that are generated from the OpenAPI document; unique, never changed. */
  operationId: string
  tags: string[]
  summary: string
  description?: string
  params?: TSchema
  querystring?: TSchema
  headers?: TSchema
  body?: TSchema
  response: Record<number, TSchema | Media>
}

/** An answer that is not JSON, by media type. */
type Media = { description: string; content: Record<string, { schema: TSchema }> }

const NoQuery = Type.Object({}, closed)

/** The body of a call that needs none: a field in it was meant for another call. */
export const NoBody = Type.Object({}, closed)

/** A route's schema, which refuses query parameters unless it names some, with the errors that every route can answer with. */
export function routeSchema({ access, ...schema }: RouteSchema) {
  const errors = { description: 'An error; `error.code` says which.', $ref: 'Error#' }
  return {
    querystring: NoQuery,
    ...schema,
    ...(access === undefined ? {} : { 'x-access': access }),
    response: { ...schema.response, '4xx': errors, '5xx': errors },
  }
}
