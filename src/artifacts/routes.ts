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
import { type Artifact, ArtifactQuery, IngestedObject, NewArtifact, NewArtifactUpload } from './schema.ts'
import type { ArtifactService } from './service.ts'
import { storedFields, storedRoutes } from './stored/routes.ts'
import { readBody, uploadSchema, withUploads } from './uploads/routes.ts'

const ArtifactBody = Type.Object({
  id: Uuid(),
  user_id: Type.String(),
  thread_id: Uuid(),
  filename: Type.String({ description: 'As it was given. Data, never a path.' }),
  ...storedFields,
  session_id: Nullable(Type.String()),
  run_id: Nullable(Type.String()),
  tool_call_id: Nullable(Type.String()),
  meta: JsonObject(),
  created_at: Instant(),
})

export const UploadBody = Type.Object({
  token: Uuid({ description: 'For the completion; also the id of what it makes.' }),
  url: Type.String({ description: 'S3, or a path of this server.' }),
  method: Type.Enum(['PUT']),
  headers: Type.Record(Type.String(), Type.String(), { description: 'To be sent as they are.' }),
  expires_at: Instant(),
})

export const TokenPath = (what: string) =>
  Type.Object({ id: Uuid({ description: what }), token: Uuid({ description: 'Of the upload.' }) })

const threadPath = IdPath('Id of the thread.')
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
          'For a sandbox that writes to the storage itself, below `uploads/` or `output/`. The bytes are read and hashed, whatever the key says. It is for an API key with the scope `ingest`, and for superusers. In the place of stored bytes such a key takes only what its user names already, or nobody: let a sandbox write below `uploads/`.',
        params: threadPath,
        body: asHttp(IngestedObject),
        response: { 201: ArtifactBody },
      }),
    },
    async (request, reply) => {
      const input = fromHttp<IngestedObject>(request.body)
      const { isSuperuser, via } = request.identity
      const trusted = isSuperuser || via === 'single-user'
      const artifact = await artifacts.ingest(request.scope, request.params.id, input, { trusted })
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

  storedRoutes<Artifact>(app, {
    ...{ name: 'Artifact', base: '/api/artifacts', tags, body: ArtifactBody },
    ...{ service: artifacts, get: artifacts.getArtifact, nameOf: ({ filename }) => filename },
  })
}
