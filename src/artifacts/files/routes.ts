import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import { snakeKeys } from '../../core/case.ts'
import { JsonObject, Nullable, Uuid } from '../../core/fields.ts'
import {
  asHttp,
  fromHttp,
  IdPath,
  Instant,
  NoBody,
  PageOf,
  pageToHttp,
  routeSchema,
} from '../../core/http-shapes.ts'
import { UploadBody } from '../routes.ts'
import { FilePatch, FileQuery, NewFile, NewFileUpload, type UserFile } from '../schema.ts'
import { storedFields, storedRoutes } from '../stored/routes.ts'
import { readBody, uploadSchema, withUploads } from '../uploads/routes.ts'
import type { FileService } from './service.ts'

const FileBody = Type.Object({
  id: Uuid(),
  user_id: Type.String(),
  name: Type.String({ description: "Unique among the user's files. Data, never a path." }),
  ...storedFields,
  flow_id: Nullable(Uuid()),
  expires_at: Nullable(Instant('When it is gone; null: it stays.')),
  meta: JsonObject(),
  created_at: Instant(),
})

const path = IdPath('Id of the file.')
const tags = ['files']

type ById = { Params: { id: string } }

/** `/api/files`. */
export async function fileRoutes(
  app: FastifyInstance,
  files: FileService,
  limits: { maxBytes: number },
): Promise<void> {
  await withUploads(app, (scope) => {
    scope.post(
      '/api/files',
      uploadSchema(
        routeSchema({
          operationId: 'createFile',
          tags,
          summary: 'Store bytes as a file',
          description:
            'A form with a part `file`, or the bytes as the body, with the name in `x-filename` (percent-encoded UTF-8). The other fields come in the query or as parts of the form; `meta` is JSON. A second `a.pdf` is called `a (1).pdf`.',
          response: { 201: FileBody },
        }),
        asHttp(NewFile).properties,
      ),
      async (request, reply) => {
        const file = await readBody(request, reply, limits, ({ source, fields }) =>
          files.create(request.scope, source, fields),
        )
        return reply.status(201).header('location', `/api/files/${file.id}`).send(snakeKeys(file))
      },
    )
  })

  app.post(
    '/api/files/uploads',
    {
      schema: routeSchema({
        operationId: 'startFileUpload',
        tags,
        summary: 'Get a URL to which a client puts the bytes by itself',
        description: 'The URL takes just the announced bytes. Then complete the upload.',
        body: asHttp(NewFileUpload),
        response: { 201: UploadBody },
      }),
    },
    async (request, reply) => {
      const upload = await files.startUpload(request.scope, fromHttp<NewFileUpload>(request.body))
      return reply.status(201).send(snakeKeys(upload))
    },
  )

  app.post<{ Params: { token: string } }>(
    '/api/files/uploads/:token/complete',
    {
      config: { untimed: 'work' },
      schema: routeSchema({
        operationId: 'completeFileUpload',
        tags,
        summary: 'Make the file of an upload',
        description:
          'Reads the bytes and checks hash and size. 201 the first time, 200 after that; 409 while nothing was uploaded.',
        params: Type.Object({ token: Uuid({ description: 'Of the upload.' }) }),
        body: NoBody,
        response: { 201: FileBody, 200: FileBody },
      }),
    },
    async (request, reply) => {
      const { file, created } = await files.completeUpload(request.scope, request.params.token)
      return reply
        .status(created ? 201 : 200)
        .header('location', `/api/files/${file.id}`)
        .send(snakeKeys(file))
    },
  )

  app.get(
    '/api/files',
    {
      schema: routeSchema({
        operationId: 'listFiles',
        tags,
        summary: 'List files, newest first',
        querystring: asHttp(FileQuery),
        response: { 200: PageOf(FileBody) },
      }),
    },
    async ({ scope, query }) => pageToHttp(await files.list(scope, fromHttp<FileQuery>(query))),
  )

  app.patch<ById>(
    '/api/files/:id',
    {
      schema: routeSchema({
        operationId: 'updateFile',
        tags,
        summary: 'Change name, flow, expiry or meta',
        params: path,
        body: asHttp(FilePatch),
        response: { 200: FileBody },
      }),
    },
    async (request) =>
      snakeKeys(await files.update(request.scope, request.params.id, fromHttp<FilePatch>(request.body))),
  )

  storedRoutes<UserFile>(app, {
    ...{ name: 'File', base: '/api/files', tags, body: FileBody },
    ...{ service: files, get: files.getFile, nameOf: ({ name }) => name },
  })
}
