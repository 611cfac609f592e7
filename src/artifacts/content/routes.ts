import { Readable } from 'node:stream'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import { type Blobs, type LocalUrls, noBlob, type ReadOptions, requireSha256 } from '../../blobs/blobs.ts'
import { passedBy } from '../../blobs/transient.ts'
import { matchesTag } from '../../core/entity-tags.ts'
import { isThreadbaseError, ThreadbaseError } from '../../core/errors.ts'
import { routeSchema } from '../../core/http-shapes.ts'
import { requireUuid } from '../../core/ids.ts'
import { readBody, withUploads } from '../uploads/routes.ts'
import { readRange } from './ranges.ts'

type Content = {
  sha256: string
  size: number
  contentType: string
  contentDisposition: string
  open(options: ReadOptions): Promise<Readable>
}

export const ContentHeaders = Type.Object({
  range: Type.Optional(Type.String({ description: 'Such as `bytes=0-999`; one range only.' })),
  'if-none-match': Type.Optional(Type.String({ description: 'Entity tags that the client has.' })),
  'if-range': Type.Optional(Type.String({ description: 'The entity tag that the range belongs to.' })),
})

/** An answer of bytes, in the OpenAPI document. */
export const BYTES = {
  description: 'The bytes.',
  content: { 'application/octet-stream': { schema: Type.String({ format: 'binary' }) } },
}
const Nothing = Type.Null({ description: 'No body.' })
export const contentResponses = { 200: BYTES, 206: BYTES, 304: Nothing, 416: Nothing }

/** Answers with bytes: whole, in part, or with 304 when the client has them. Browsers keep them and ask again. */
export async function sendBytes(
  request: FastifyRequest,
  reply: FastifyReply,
  { sha256, size, contentType, contentDisposition, open }: Content,
): Promise<FastifyReply> {
  const tag = `"${sha256}"`
  const validators = { etag: tag, 'accept-ranges': 'bytes', 'cache-control': 'private, no-cache' }
  const facts = { ...validators, 'content-type': contentType, 'content-disposition': contentDisposition }
  if (matchesTag(request.headers['if-none-match'], tag)) return reply.headers(facts).status(304).send()
  const ifRange = request.headers['if-range']
  const range = ifRange === undefined || ifRange === tag ? readRange(request.headers.range, size) : undefined
  if (range === 'none')
    return reply
      .headers(validators)
      .status(416)
      .header('content-range', `bytes */${size}`)
      .type('text/plain; charset=utf-8')
      .send('')
  // first: what fails must not say that it is these bytes, for browsers to keep
  const stream = request.method === 'HEAD' ? Readable.from([]) : await opened(sha256, () => open(range ?? {}))
  reply.headers(facts)
  if (range !== undefined)
    reply.status(206).header('content-range', `bytes ${range.start}-${range.end}/${size}`)
  // as a stream also without bytes: of a text the framework would write the length of that
  return reply.header('content-length', range === undefined ? size : range.end - range.start + 1).send(stream)
}

/** Bytes that a row names and the storage has not are no question of who asks. */
async function opened(sha256: string, open: () => Promise<Readable>): Promise<Readable> {
  try {
    return Readable.from(counted(await open()), { objectMode: false, highWaterMark: 1 << 18 })
  } catch (cause) {
    if (!isThreadbaseError(cause, 'not_found') || cause.details?.sha256 !== sha256) throw cause
    const message = 'the bytes are missing in the storage: `threadbase blobs verify` lists such'
    throw new ThreadbaseError('unavailable', message, { sha256 }, { cause })
  }
}

async function* counted(stream: Readable): AsyncGenerator<Uint8Array> {
  for await (const chunk of stream) {
    yield chunk
    passedBy(chunk.length)
  }
}

const SignedGet = Type.Object({
  type: Type.Optional(Type.String()),
  disposition: Type.Optional(Type.String()),
  expires: Type.Optional(Type.String()),
  signature: Type.Optional(Type.String()),
})
const SignedPut = Type.Object({
  sha256: Type.Optional(Type.String()),
  size: Type.Optional(Type.String()),
  expires: Type.Optional(Type.String()),
  signature: Type.Optional(Type.String()),
})

const tags = ['artifacts']

/** `/api/blobs`: the URLs that this server presigned, for whoever has them. */
export async function blobUrlRoutes(
  app: FastifyInstance,
  blobs: Blobs,
  { maxBytes }: { maxBytes: number },
): Promise<void> {
  app.get<{ Params: { sha256: string }; Querystring: Record<string, string> }>(
    '/api/blobs/:sha256',
    {
      config: { untimed: 'transfer' },
      schema: routeSchema({
        operationId: 'getSignedBlob',
        access: 'public',
        tags,
        summary: 'Bytes by a presigned URL',
        description: 'Such URLs come from downloads of artifacts and files. On S3 they lead there.',
        params: Type.Object({ sha256: Type.String() }),
        querystring: SignedGet,
        headers: ContentHeaders,
        response: contentResponses,
      }),
    },
    async (request, reply) => {
      const { sha256 } = request.params
      const headers = await localOf(blobs).checkGet(sha256, request.query)
      const stored = await blobs.find(requireSha256(sha256))
      if (stored === undefined) throw noBlob(sha256)
      const open = (options: ReadOptions) => blobs.read(sha256, options)
      return sendBytes(request, reply, { ...headers, sha256, size: stored.size, open })
    },
  )

  await withUploads(app, (scope) => {
    scope.put<{ Params: { name: string }; Querystring: Record<string, string> }>(
      '/api/blobs/uploads/:name',
      {
        config: { untimed: 'transfer' },
        schema: {
          ...routeSchema({
            operationId: 'putSignedUpload',
            access: 'public',
            tags,
            summary: 'Put bytes to a presigned URL',
            description:
              'Such URLs come from the start of an upload. The body is the bytes, and no others are taken.',
            params: Type.Object({ name: Type.String() }),
            querystring: SignedPut,
            response: { 200: Type.Null() },
          }),
          consumes: ['application/octet-stream'],
          body: Type.String({ format: 'binary' }),
        },
        validatorCompiler: () => () => true,
      },
      async (request, reply) => {
        const name = requireUuid(request.params.name, 'upload')
        await readBody(request, reply, { maxBytes }, ({ source }) =>
          localOf(blobs).put(name, request.query, source),
        )
        return reply.status(200).send()
      },
    )
  })
}

function localOf({ local }: Blobs): LocalUrls {
  if (local !== undefined) return local
  throw new ThreadbaseError('not_found', 'this installation keeps bytes in S3: presigned URLs lead there')
}
