import type { FastifyInstance } from 'fastify'
import type { TObject, TSchema } from 'typebox'
import { tryParse } from '../core/validate.ts'

const WORDS: Record<string, string> = {
  body: 'body',
  querystring: 'query',
  params: 'path',
  headers: 'headers',
}

/** Checks requests with the validator of the services, so that both say the same of the same mistake. */
export function registerValidation(app: FastifyInstance): void {
  app.setValidatorCompiler<TSchema>(({ schema, httpPart = 'body' }) => {
    const what = WORDS[httpPart] ?? httpPart
    return (data: unknown) =>
      tryParse(schema, httpPart === 'querystring' ? coerceQuery(schema as TObject, data) : data, what)
  })
  // `curl -X POST` sends no body, which is no fields; Fastify's own null for it would be the same as JSON's
  app.addHook('preValidation', async (request) => {
    if (request.body === undefined && request.routeOptions.schema?.body !== undefined) request.body = {}
  })
  app.setSchemaErrorFormatter(([error]) => error as unknown as Error)
}

/** Numbers and booleans of a query string, where the schema asks for them; anything else stays text and is refused. */
function coerceQuery(schema: TObject, data: unknown): unknown {
  // without a prototype, so that `__proto__` is an unknown name like any other
  const result: Record<string, unknown> = Object.create(null)
  for (const [name, value] of Object.entries(data as object)) {
    const type = (schema.properties[name] as { type?: string } | undefined)?.type
    if (type === 'integer' && typeof value === 'string' && /^-?\d{1,16}$/.test(value))
      result[name] = Number(value)
    else if (type === 'boolean' && (value === 'true' || value === '1')) result[name] = true
    else if (type === 'boolean' && (value === 'false' || value === '0')) result[name] = false
    else result[name] = value
  }
  return result
}
