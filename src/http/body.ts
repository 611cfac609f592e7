import { isUtf8 } from 'node:buffer'
import type { FastifyInstance } from 'fastify'
import { ThreadbaseError } from '../core/errors.ts'
import { parseJson } from '../core/json.ts'

/**
 * Reads JSON bodies without losing anything: long numbers stay exact, `__proto__` is a field like any other, and an
 * empty body is no body. Answers are written by JSON.stringify for the same reason: a serializer made from a schema
 * drops what the schema does not foresee.
 */
export function registerJson(app: FastifyInstance): void {
  app.removeAllContentTypeParsers()
  app.addContentTypeParser(/^application\/(.+\+)?json\b/, { parseAs: 'buffer' }, (_request, body, done) => {
    try {
      done(null, readJson(body as Buffer))
    } catch (error) {
      done(error as Error)
    }
  })
  app.setSerializerCompiler(() => (value) => JSON.stringify(value))
}

function readJson(body: Buffer): unknown {
  if (body.length === 0) return undefined
  if (!isUtf8(body)) throw new ThreadbaseError('invalid_input', 'the body is not UTF-8')
  try {
    return parseJson(body.toString('utf8').replace(/^\ufeff/, ''))
  } catch (error) {
    throw new ThreadbaseError('invalid_input', `the body is not JSON: ${(error as Error).message}`)
  }
}
