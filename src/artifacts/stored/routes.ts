import type { FastifyInstance } from 'fastify'
import { type TSchema, Type } from 'typebox'
import { snakeKeys } from '../../core/case.ts'
import { Nullable, Uuid } from '../../core/fields.ts'
import { IdPath, Instant, routeSchema } from '../../core/http-shapes.ts'
import type { Scope } from '../../core/scope.ts'
import type { Readers } from '../bytes/readers.ts'
import { ContentHeaders, contentResponses, sendBytes } from '../content/routes.ts'
import { contentTypeOf, dispositionOf } from '../media.ts'
import type { StoredBytes } from '../schema.ts'

export const storedFields = {
  mime: Type.String({ description: 'What the bytes were found to be.' }),
  size: Type.Integer({ description: 'In bytes.' }),
  sha256: Type.String({ description: '64 hexadecimal digits.' }),
}

const HeadBody = Type.Object({
  id: Uuid(),
  ...storedFields,
  exists: Type.Boolean({ description: 'Whether the storage has the bytes.' }),
  stored_at: Nullable(Instant('When they were stored, or stored again.')),
})

const DownloadQuery = Type.Object(
  {
    expires_in_s: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 604_800,
        default: 86_400,
        description: 'Seconds that the URL is good for.',
      }),
    ),
    download: Type.Optional(
      Type.Boolean({ default: false, description: 'Browsers save it even where they could show it.' }),
    ),
  },
  { additionalProperties: false },
)
type DownloadQuery = { expires_in_s?: number; download?: boolean }

type Stored<T> = {
  /** `Artifact` or `File`: ends the names of the operations. */
  name: string
  /** Where they are, such as `/api/files`. */
  base: string
  tags: string[]
  body: TSchema
  service: Readers & { delete(scope: Scope, id: string): Promise<boolean> }
  get(scope: Scope, id: string): Promise<T>
  nameOf(row: T): string
}

type ById = { Params: { id: string } }

/** What is done to an artifact or a file by its id: `{base}/{id}`, `/head`, `/download`, `/content`, and its end. */
export function storedRoutes<T extends StoredBytes & object>(
  app: FastifyInstance,
  { name, base, tags, body, service, get, nameOf }: Stored<T>,
): void {
  const what = name === 'File' ? 'a file' : 'an artifact'
  const params = IdPath(`Id of the ${name.toLowerCase()}.`)

  app.get<ById>(
    `${base}/:id`,
    {
      schema: routeSchema({
        operationId: `get${name}`,
        tags,
        summary: `Read what is known of ${what}`,
        params,
        response: { 200: body },
      }),
    },
    async ({ scope, params: { id } }) => snakeKeys(await get(scope, id)),
  )

  app.get<ById>(
    `${base}/:id/head`,
    {
      schema: routeSchema({
        operationId: `head${name}`,
        tags,
        summary: 'Look whether the storage has the bytes',
        params,
        response: { 200: HeadBody },
      }),
    },
    async ({ scope, params: { id } }) => snakeKeys(await service.head(scope, id)),
  )

  app.get<ById & { Querystring: DownloadQuery }>(
    `${base}/:id/download`,
    {
      schema: routeSchema({
        operationId: `download${name}`,
        tags,
        summary: 'Redirect to a presigned URL',
        description: 'Whoever has the URL has the bytes, for 24 hours unless another time is asked for.',
        params,
        querystring: DownloadQuery,
        response: { 307: Type.Null() },
      }),
    },
    async ({ scope, params: { id }, query }, reply) => {
      const { expires_in_s: expiresInS, download } = query
      return reply.redirect(await service.presign(scope, id, { expiresInS, download }), 307)
    },
  )

  app.get<ById & { Querystring: { download?: boolean } }>(
    `${base}/:id/content`,
    {
      config: { untimed: 'transfer' },
      schema: routeSchema({
        operationId: `get${name}Content`,
        tags,
        summary: `The bytes of ${what}`,
        params,
        querystring: Type.Pick(DownloadQuery, ['download']),
        headers: ContentHeaders,
        response: contentResponses,
      }),
    },
    async (request, reply) => {
      const { scope, params: path, query } = request
      const row = await get(scope, path.id)
      return sendBytes(request, reply, {
        ...{ sha256: row.sha256, size: row.size, contentType: contentTypeOf(row.mime) },
        contentDisposition: dispositionOf(row.mime, nameOf(row), query),
        open: (options) => service.read(scope, path.id, options),
      })
    },
  )

  app.delete<ById>(
    `${base}/:id`,
    {
      schema: routeSchema({
        operationId: `delete${name}`,
        tags,
        summary: `Delete ${what}`,
        description:
          'Answers 204 also when there is none. The bytes go with the next collection, unless something else names them.',
        params,
        response: { 204: Type.Null() },
      }),
    },
    async (request, reply) => {
      await service.delete(request.scope, request.params.id)
      return reply.status(204).send()
    },
  )
}
