import type { Static, TSchema } from 'typebox'
import { Compile, type Validator } from 'typebox/compile'
import { ThreadbaseError } from './errors.ts'
import { PATTERN_MEANINGS } from './fields.ts'

export type Problem = { path: string; message: string }

const compiled = new WeakMap<TSchema, Validator>()

function validatorOf(schema: TSchema): Validator {
  let validator = compiled.get(schema)
  if (validator === undefined) {
    validator = Compile(schema)
    compiled.set(schema, validator)
  }
  return validator
}

/**
 * The value, typed, if the schema accepts it.
 * @param what names the value in messages: `body`, `query`, `thread`
 * @throws invalid_input that says what is wrong and where; `details.problems` lists the places
 */
export function parseInput<T extends TSchema>(schema: T, value: unknown, what = 'input'): Static<T> {
  const validator = validatorOf(schema)
  if (validator.Check(value)) return value as Static<T>
  const problems = listProblems(validator, value)
  const first = problems[0]
  const where = first === undefined || first.path === '' ? what : `${what}.${first.path}`
  throw new ThreadbaseError('invalid_input', `${where} ${first?.message ?? 'is not valid'}`, { problems })
}

/** As {@link parseInput}, for a caller that wants the error as a value. */
export function tryParse<T extends TSchema>(
  schema: T,
  value: unknown,
  what: string,
): { value: Static<T> } | { error: Error } {
  try {
    return { value: parseInput(schema, value, what) }
  } catch (error) {
    return { error: error as Error }
  }
}

const MAX_PROBLEMS = 10

function listProblems(validator: Validator, value: unknown): Problem[] {
  const errors = [...validator.Errors(value)]
  const unions = new Set(
    errors.filter(({ keyword }) => keyword === 'anyOf').map(({ instancePath }) => instancePath),
  )
  return errors
    .filter(({ keyword, instancePath, params }) => {
      // an unknown field is also reported as a schema that is false, a nullable one also as not null
      if (keyword === 'boolean' || keyword === 'anyOf') return false
      return !(
        unions.has(instancePath) &&
        keyword === 'type' &&
        (params as { type?: unknown }).type === 'null'
      )
    })
    .slice(0, MAX_PROBLEMS)
    .map(toProblem)
}

type SchemaError = { keyword: string; instancePath: string; message: string; params: object }

/** A path in dots (`messages.3.role`) and a sentence that names an unknown or missing field. */
function toProblem({ keyword, instancePath, message, params }: SchemaError): Problem {
  const path = instancePath.replace(/^\//, '').replaceAll('/', '.')
  const facts = params as Record<string, unknown>
  const list = (value: unknown) => [value].flat().join(', ')
  switch (keyword) {
    case 'additionalProperties':
      return { path, message: `has a field that is not known: ${list(facts.additionalProperties)}` }
    case 'required':
      return { path, message: `lacks a required field: ${list(facts.requiredProperties)}` }
    case 'enum':
      return { path, message: `must be one of: ${list(facts.allowedValues)}` }
    case 'pattern':
      return { path, message: PATTERN_MEANINGS.get(String(facts.pattern)) ?? message }
    default:
      return { path, message }
  }
}
