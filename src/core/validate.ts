import type { Static, TSchema } from 'typebox'
import { Compile, type Validator } from 'typebox/compile'
import { ThreadbaseError } from './errors.ts'

const compiled = new WeakMap<TSchema, Validator>()

function validatorOf(schema: TSchema): Validator {
  let validator = compiled.get(schema)
  if (validator === undefined) {
    validator = Compile(schema)
    compiled.set(schema, validator)
  }
  return validator
}

export type Problem = { path: string; message: string }

/**
 * The value, typed, if the schema accepts it.
 * @throws invalid_input that says what is wrong and where; `details.problems` lists each place.
 */
export function parseInput<T extends TSchema>(schema: T, value: unknown, what = 'input'): Static<T> {
  const validator = validatorOf(schema)
  if (validator.Check(value)) return value as Static<T>
  // an unknown field is reported twice, once as a schema that is false
  const problems = [...validator.Errors(value)]
    .filter((error) => error.keyword !== 'boolean')
    .slice(0, 10)
    .map(toProblem)
  const first = problems[0]
  const where = first === undefined || first.path === '' ? what : `${what}.${first.path}`
  throw new ThreadbaseError('invalid_input', `${where} ${first?.message ?? 'is not valid'}`, { problems })
}

type SchemaError = { keyword: string; instancePath: string; message: string; params: object }

/** A path in dots (`messages.3.role`) and a sentence that names an unknown or missing field. */
export function toProblem(error: SchemaError): Problem {
  const path = error.instancePath.replace(/^\//, '').replaceAll('/', '.')
  const params = error.params as Record<string, unknown>
  const extra = params.additionalProperties ?? params.additionalProperty ?? params.unevaluatedProperties
  if (error.keyword === 'additionalProperties' && extra !== undefined) {
    return { path, message: `has a field that is not known: ${[extra].flat().join(', ')}` }
  }
  if (error.keyword === 'required') {
    const missing = params.requiredProperties ?? params.missingProperty
    return { path, message: `lacks a required field: ${[missing].flat().join(', ')}` }
  }
  if (error.keyword === 'enum' || error.keyword === 'const') {
    const allowed = params.allowedValues ?? params.allowedValue
    return { path, message: `must be one of: ${[allowed].flat().join(', ')}` }
  }
  return { path, message: error.message }
}
