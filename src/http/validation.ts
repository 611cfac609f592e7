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
    // a body with no required field may be left out: `curl -X POST` sends none
    const optionalBody = httpPart === 'body' && !((schema as { required?: string[] }).required?.length ?? 0)
    return (data: unknown) => {
      const value = httpPart === 'querystring' ? coerceQuery(schema as TObject, data) : data
      return tryParse(schema, optionalBody ? (value ?? {}) : value, what)
    }
  })
  app.setSchemaErrorFormatter(([error]) => error as unknown as Error)
}

/** Numbers and booleans of a query string, where the schema asks for them; anything else stays text and is refused. */
function coerceQuery(schema: TObject, data: unknown): unknown {
  const result: Record<string, unknown> = {}
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
