import { isUtf8 } from 'node:buffer'
import type { FastifyInstance } from 'fastify'
import { isThreadbaseError, ThreadbaseError } from '../core/errors.ts'
import { parseJson } from '../core/json.ts'
import { findJsonError } from '../core/json-position.ts'

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
  const text = body.toString('utf8').replace(/^\ufeff/, '')
  try {
    return parseJson(text)
  } catch (error) {
    throw isThreadbaseError(error) ? error : notJson(text, error as Error)
  }
}

function notJson(text: string, cause: Error): ThreadbaseError {
  const place = findJsonError(text)
  if (place === undefined)
    return new ThreadbaseError('invalid_input', `the body is not JSON: ${cause.message}`)
  const found = text.codePointAt(place.position)
  const what =
    found === undefined ? 'it ends too early,' : `unexpected ${JSON.stringify(String.fromCodePoint(found))}`
  return new ThreadbaseError(
    'invalid_input',
    `the body is not JSON: ${what} at line ${place.line}, column ${place.column}`,
    place,
  )
}
