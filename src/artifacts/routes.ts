import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import { snakeKeys } from '../core/case.ts'
import { JsonObject, Nullable, Uuid } from '../core/fields.ts'
import {
  asHttp,
  fromHttp,
  IdPath,
  Instant,
  NoBody,
  PageOf,
  pageToHttp,
  routeSchema,
} from '../core/http-shapes.ts'
import { ContentHeaders, contentResponses, sendBytes } from './content/routes.ts'
import { contentTypeOf, dispositionOf } from './media.ts'
import { ArtifactQuery, IngestedObject, NewArtifact, NewArtifactUpload } from './schema.ts'
import type { ArtifactService } from './service.ts'
import { readBody, uploadSchema, withUploads } from './uploads/routes.ts'

const stored = {
  mime: Type.String({ description: 'What the bytes were found to be.' }),
  size: Type.Integer({ description: 'In bytes.' }),
  sha256: Type.String({ description: '64 hexadecimal digits.' }),
}

const ArtifactBody = Type.Object({
  id: Uuid(),
  user_id: Type.String(),
  thread_id: Uuid(),
  filename: Type.String({ description: 'As it was given. Data, never a path.' }),
  ...stored,
  session_id: Nullable(Type.String()),
  run_id: Nullable(Type.String()),
  tool_call_id: Nullable(Type.String()),
  meta: JsonObject(),
  created_at: Instant(),
})

export const HeadBody = Type.Object({
  id: Uuid(),
  ...stored,
  exists: Type.Boolean({ description: 'Whether the storage has the bytes.' }),
  stored_at: Nullable(Instant('When they were stored, or stored again.')),
})

export const UploadBody = Type.Object({
  token: Uuid({ description: 'For the completion; also the id of what it makes.' }),
  url: Type.String({ description: 'S3, or a path of this server.' }),
  method: Type.Enum(['PUT']),
  headers: Type.Record(Type.String(), Type.String(), { description: 'To be sent as they are.' }),
  expires_at: Instant(),
})

export const DownloadQuery = Type.Object(
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
export type DownloadQuery = { expires_in_s?: number; download?: boolean }

export const TokenPath = (what: string) =>
  Type.Object({ id: Uuid({ description: what }), token: Uuid({ description: 'Of the upload.' }) })

const threadPath = IdPath('Id of the thread.')
const path = IdPath('Id of the artifact.')
const tags = ['artifacts']

type ById = { Params: { id: string } }
type ByToken = { Params: { id: string; token: string } }

/** `/api/threads/{id}/artifacts` and `/api/artifacts`. */
export async function artifactRoutes(
  app: FastifyInstance,
  artifacts: ArtifactService,
  limits: { maxBytes: number },
): Promise<void> {
  await withUploads(app, (scope) => {
    scope.post<ById>(
      '/api/threads/:id/artifacts',
      uploadSchema(
        routeSchema({
          operationId: 'createArtifact',
          tags,
          summary: 'Store bytes as an artifact',
          description:
            'A form with a part `file`, or the bytes as the body, with the name in `x-filename` (percent-encoded UTF-8). The other fields come in the query or as parts of the form; `meta` is JSON. With `sha256` or `size` other bytes are refused.',
          params: threadPath,
          response: { 201: ArtifactBody },
        }),
        asHttp(NewArtifact).properties,
      ),
      async (request, reply) => {
        const artifact = await readBody(request, reply, limits, ({ source, fields }) =>
          artifacts.create(request.scope, request.params.id, source, fields),
        )
        return reply.status(201).header('location', `/api/artifacts/${artifact.id}`).send(snakeKeys(artifact))
      },
    )
  })

  app.post<ById>(
    '/api/threads/:id/artifacts/uploads',
    {
      schema: routeSchema({
        operationId: 'startArtifactUpload',
        tags,
        summary: 'Get a URL to which a client puts the bytes by itself',
        description: 'The URL takes just the announced bytes. Then complete the upload.',
        params: threadPath,
        body: asHttp(NewArtifactUpload),
        response: { 201: UploadBody },
      }),
    },
    async (request, reply) => {
      const input = fromHttp<NewArtifactUpload>(request.body)
      const upload = await artifacts.startUpload(request.scope, request.params.id, input)
      return reply.status(201).send(snakeKeys(upload))
    },
  )

  app.post<ByToken>(
    '/api/threads/:id/artifacts/uploads/:token/complete',
    {
      // the bytes are read and hashed
      config: { untimed: 'work' },
      schema: routeSchema({
        operationId: 'completeArtifactUpload',
        tags,
        summary: 'Make the artifact of an upload',
        description:
          'Reads the bytes and checks hash and size. 201 the first time, 200 after that; 409 while nothing was uploaded.',
        params: TokenPath('Id of the thread.'),
        body: NoBody,
        response: { 201: ArtifactBody, 200: ArtifactBody },
      }),
    },
    async (request, reply) => {
      const { id, token } = request.params
      const { artifact, created } = await artifacts.completeUpload(request.scope, id, token)
      return reply
        .status(created ? 201 : 200)
        .header('location', `/api/artifacts/${artifact.id}`)
        .send(snakeKeys(artifact))
    },
  )

  app.post<ById>(
    '/api/threads/:id/artifacts/ingest',
    {
      config: { untimed: 'work' },
      schema: routeSchema({
        operationId: 'ingestArtifact',
        access: 'ingest',
        tags,
        summary: 'Make the artifact of an object that is in the storage already',
        description:
          'For a sandbox that writes to the storage itself, below `uploads/` or `output/`. The bytes are read and hashed, whatever the key says. It is for an API key with the scope `ingest`, which reaches all objects there, and for superusers.',
        params: threadPath,
        body: asHttp(IngestedObject),
        response: { 201: ArtifactBody },
      }),
    },
    async (request, reply) => {
      const input = fromHttp<IngestedObject>(request.body)
      const artifact = await artifacts.ingest(request.scope, request.params.id, input)
      return reply.status(201).header('location', `/api/artifacts/${artifact.id}`).send(snakeKeys(artifact))
    },
  )

  app.get<ById>(
    '/api/threads/:id/artifacts',
    {
      schema: routeSchema({
        operationId: 'listArtifacts',
        tags,
        summary: "List a thread's artifacts, newest first",
        params: threadPath,
        querystring: asHttp(ArtifactQuery),
        response: { 200: PageOf(ArtifactBody) },
      }),
    },
    async ({ scope, params, query }) =>
      pageToHttp(await artifacts.list(scope, params.id, fromHttp<ArtifactQuery>(query))),
  )

  app.get<ById>(
    '/api/artifacts/:id',
    {
      schema: routeSchema({
        operationId: 'getArtifact',
        tags,
        summary: 'Read what is known of an artifact',
        params: path,
        response: { 200: ArtifactBody },
      }),
    },
    async ({ scope, params }) => snakeKeys(await artifacts.getArtifact(scope, params.id)),
  )

  app.get<ById>(
    '/api/artifacts/:id/head',
    {
      schema: routeSchema({
        operationId: 'headArtifact',
        tags,
        summary: 'Look whether the storage has the bytes',
        params: path,
        response: { 200: HeadBody },
      }),
    },
    async ({ scope, params }) => snakeKeys(await artifacts.head(scope, params.id)),
  )

  app.get<ById & { Querystring: DownloadQuery }>(
    '/api/artifacts/:id/download',
    {
      schema: routeSchema({
        operationId: 'downloadArtifact',
        tags,
        summary: 'Redirect to a presigned URL',
        description: 'Whoever has the URL has the bytes, for 24 hours unless another time is asked for.',
        params: path,
        querystring: DownloadQuery,
        response: { 307: Type.Null() },
      }),
    },
    async ({ scope, params, query }, reply) => {
      const { expires_in_s: expiresInS, download } = query
      return reply.redirect(await artifacts.presign(scope, params.id, { expiresInS, download }), 307)
    },
  )

  app.get<ById & { Querystring: { download?: boolean } }>(
    '/api/artifacts/:id/content',
    {
      config: { untimed: 'transfer' },
      schema: routeSchema({
        operationId: 'getArtifactContent',
        tags,
        summary: 'The bytes of an artifact',
        params: path,
        querystring: Type.Pick(DownloadQuery, ['download']),
        headers: ContentHeaders,
        response: contentResponses,
      }),
    },
    async (request, reply) => {
      const { scope, params, query } = request
      const { mime, filename, sha256, size } = await artifacts.getArtifact(scope, params.id)
      return sendBytes(request, reply, {
        ...{ sha256, size, contentType: contentTypeOf(mime) },
        contentDisposition: dispositionOf(mime, filename, query),
        open: (options) => artifacts.read(scope, params.id, options),
      })
    },
  )

  app.delete<ById>(
    '/api/artifacts/:id',
    {
      schema: routeSchema({
        operationId: 'deleteArtifact',
        tags,
        summary: 'Delete an artifact',
        description:
          'Answers 204 also when there is none. The bytes go with the next collection, unless something else names them.',
        params: path,
        response: { 204: Type.Null() },
      }),
    },
    async (request, reply) => {
      await artifacts.delete(request.scope, request.params.id)
      return reply.status(204).send()
    },
  )
}
