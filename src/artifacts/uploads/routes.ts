import { isUtf8 } from 'node:buffer'
import type { IncomingMessage } from 'node:http'
import type { Readable } from 'node:stream'
import multipart, { type Multipart } from '@fastify/multipart'
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteShorthandOptions } from 'fastify'
import { type TProperties, Type } from 'typebox'
import { camelKeys } from '../../core/case.ts'
import { isThreadbaseError, ThreadbaseError } from '../../core/errors.ts'
import { parseJson } from '../../core/json.ts'
import { tryParse } from '../../core/validate.ts'

/** What came in one request: the bytes, and the fields that came with them; those of a form are complete once the bytes are in. */
type Body = {
  source: AsyncIterable<Uint8Array>
  fields: Record<string, unknown> | (() => Record<string, unknown>)
}

const DRAINED_BYTES = 100_000_000
const DRAINED_MS = 5_000
const MAX_FIELDS = 50
const MAX_FIELD_BYTES = 1_000_000
// what clients send when nobody told them what it is
const NO_CLAIM = /^(application\/(octet-stream|x-www-form-urlencoded)|multipart\/form-data)\b/

// of a part that says nothing (RFC 7578, section 4.4): the name tells more
const PART_DEFAULT = 'text/plain'

/** Routes whose body is bytes, in any type, JSON included: it comes as a stream. */
export async function withUploads(
  app: FastifyInstance,
  routes: (scope: FastifyInstance) => void,
): Promise<void> {
  await app.register(async (scope) => {
    scope.removeAllContentTypeParsers()
    await scope.register(multipart)
    scope.addContentTypeParser('*', (_request, payload, done) => done(null, payload))
    routes(scope)
  })
}

/** The options of a route that takes bytes with these fields, which come in the query, or beside the bytes as parts of a form. */
export function uploadSchema(schema: Record<string, unknown>, fields: TProperties): RouteShorthandOptions {
  const texts = Object.fromEntries(
    Object.entries(fields).map(([name, field]) => [
      name,
      Type.Optional(Type.String({ description: (field as { description?: string }).description })),
    ]),
  )
  return {
    config: { untimed: 'transfer' },
    schema: {
      ...schema,
      querystring: Type.Object(texts, { additionalProperties: false }),
      consumes: ['multipart/form-data', 'application/octet-stream'],
      body: Type.Object({ file: Type.String({ format: 'binary' }), ...texts }),
    },
    // the bytes are checked as they come
    validatorCompiler: ({ schema: one, httpPart }) =>
      httpPart === 'body' ? () => true : (data) => tryParse(one as never, data, httpPart ?? 'request'),
  }
}

/**
 * Hands the bytes of a request on. When that fails before all of them have come, the connection ends with the answer.
 * @throws too_large at once when more are announced
 */
export async function readBody<T>(
  request: FastifyRequest,
  reply: FastifyReply,
  { maxBytes }: { maxBytes: number },
  use: (body: Body) => Promise<T>,
): Promise<T> {
  // who reads no further lets go of the request, not of the connection: only its other end does that
  const { socket } = request.raw
  try {
    if (request.isMultipart()) return await use(ofForm(request))
    if (Number(request.headers['content-length'] ?? 0) > maxBytes)
      throw new ThreadbaseError('too_large', `more than ${maxBytes} bytes`, { maxBytes })
    return await use(ofStream(request))
  } catch (error) {
    if (request.raw.complete) throw error
    if (!request.raw.destroyed) drain(request.raw)
    else reply.header('connection', 'close')
    throw socket.destroyed ? wentAway(error) : error
  }
}

/**
 * Reads on for a while without use: a connection that is closed while its client still sends is reset, and the client may
 * never see why.
 */
function drain(raw: IncomingMessage): void {
  let left = DRAINED_BYTES
  const end = () => raw.destroy()
  const timer = setTimeout(end, DRAINED_MS)
  for (const event of ['end', 'close']) raw.once(event, () => clearTimeout(timer))
  // the reader of a form that has stopped would hold it back for ever
  raw.unpipe()
  raw.on('data', (chunk: Buffer) => {
    left -= chunk.length
    if (left < 0) end()
  })
  raw.resume()
}

function wentAway(cause: unknown): ThreadbaseError {
  const message = 'the connection ended before all of the bytes had come'
  return new ThreadbaseError('invalid_input', message, undefined, { cause })
}

function ofStream(request: FastifyRequest): Body {
  const { headers } = request
  const isEmpty = headers['content-length'] === '0'
  const body = request.body as Readable | undefined
  if (!isEmpty && typeof body?.pipe !== 'function')
    throw new ThreadbaseError('invalid_input', 'send the bytes as the body, or a form with a part `file`')
  const type = headers['content-type']
  const filename = headers['x-filename']
  const fields = {
    ...(typeof filename === 'string' ? { filename: readFilename(filename) } : {}),
    ...(type === undefined || NO_CLAIM.test(type) ? {} : { mime: type }),
    ...toFields(request.query as Record<string, string>),
  }
  return { source: isEmpty ? nothing() : kept(body as Readable), fields }
}

/** Who stops reading does not end the stream. */
const kept = (stream: Readable): AsyncIterable<Uint8Array> => ({
  [Symbol.asyncIterator]: () => stream.iterator({ destroyOnReturn: false }),
})

async function* nothing(): AsyncGenerator<Uint8Array> {}

/** A name in a header: UTF-8, percent-encoded where it holds more than ASCII, or as it is. */
function readFilename(header: string): string {
  const bytes = Buffer.from(header, 'latin1')
  const text = isUtf8(bytes) ? bytes.toString('utf8') : header
  try {
    return decodeURIComponent(text)
  } catch {
    // a percent sign that begins no code
    return text
  }
}

/** A form with one file. Fields may come before and behind it. */
function ofForm(request: FastifyRequest): Body {
  const values: Record<string, string> = Object.create(null)
  Object.assign(values, request.query)
  const claims: { filename?: string; mime?: string } = {}
  const source = async function* () {
    let hasFile = false
    // whoever takes the bytes counts them
    const limits = {
      files: 2,
      fields: MAX_FIELDS,
      fieldSize: MAX_FIELD_BYTES,
      fileSize: Number.POSITIVE_INFINITY,
    }
    try {
      for await (const part of request.parts({ limits, preservePath: true })) {
        if (part.type === 'field') values[part.fieldname] = textOf(part)
        else if (hasFile)
          throw new ThreadbaseError('invalid_input', 'the form has several files: send one a request')
        else {
          hasFile = true
          if (part.filename !== '') claims.filename = part.filename
          if (!NO_CLAIM.test(part.mimetype) && part.mimetype !== PART_DEFAULT) claims.mime = part.mimetype
          yield* part.file as AsyncIterable<Uint8Array>
        }
      }
    } catch (error) {
      throw isThreadbaseError(error) ? error : brokenForm(error)
    }
    if (!hasFile) throw new ThreadbaseError('invalid_input', 'the form has no part `file` with a filename')
  }
  return { source: source(), fields: () => ({ ...claims, ...toFields(values) }) }
}

function textOf({ fieldname, value, valueTruncated }: Multipart & { type: 'field' }): string {
  if (valueTruncated || typeof value !== 'string')
    throw new ThreadbaseError('invalid_input', `the field ${fieldname} is too long, or no text`, {
      field: fieldname,
    })
  return value
}

function brokenForm(cause: unknown): ThreadbaseError {
  const { message } = cause as Error
  return new ThreadbaseError('invalid_input', `the form cannot be read: ${message}`, undefined, { cause })
}

/** Texts as the service's fields: numbers, booleans and JSON are read; what they are not stays text and is refused there. */
function toFields(texts: Record<string, string>): Record<string, unknown> {
  const fields = Object.entries(texts).map(([name, text]) => {
    if (name === 'size' && /^\d{1,15}$/.test(text)) return [name, Number(text)]
    if (name === 'temporary' && /^(true|false|1|0)$/.test(text))
      return [name, text === 'true' || text === '1']
    return [name, name === 'meta' ? readMeta(text) : text]
  })
  return camelKeys(Object.fromEntries(fields))
}

function readMeta(text: string): unknown {
  try {
    return parseJson(text)
  } catch (cause) {
    throw isThreadbaseError(cause)
      ? cause
      : new ThreadbaseError('invalid_input', 'meta is not JSON', { field: 'meta' }, { cause })
  }
}
