import type { FastifyInstance } from 'fastify'
import type { TObject, TSchema } from 'typebox'
import { isRawNumber } from '../core/json.ts'
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
    const prepare =
      httpPart === 'querystring'
        ? coerceQuery
        : httpPart === 'body'
          ? roundNumbers
          : (_: TObject, data: unknown) => data
    return (data: unknown) => tryParse(schema, prepare(schema as TObject, data), what)
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

type NumberSchema = { type?: string; anyOf?: NumberSchema[] }

const takesNumber = ({ type, anyOf }: NumberSchema): boolean =>
  type === 'number' || type === 'integer' || (anyOf?.some(takesNumber) ?? false)

/** A field of ours that is a number takes 0.69999999999999996 for the double it stands for; data keeps every digit. */
function roundNumbers({ properties }: TObject, data: unknown): unknown {
  if (typeof data !== 'object' || data === null || Array.isArray(data)) return data
  const rounded = Object.entries(data).filter(([name, value]) => {
    const schema = Object.hasOwn(properties ?? {}, name) ? properties[name] : undefined
    return isRawNumber(value) && schema !== undefined && takesNumber(schema as NumberSchema)
  })
  if (rounded.length === 0) return data
  return { ...data, ...Object.fromEntries(rounded.map(([name, value]) => [name, Number(value.rawJSON)])) }
}
