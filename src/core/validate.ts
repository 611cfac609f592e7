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
  // an unknown field is also reported as a schema that is false
  const told = errors.filter(({ keyword }) => keyword !== 'boolean' && keyword !== 'anyOf')
  const meant = told.filter((error) => !(unions.has(error.instancePath) && isOfOtherBranch(error, told)))
  // the types of a union's branches are one problem
  const types = Map.groupBy(meant, ({ keyword, instancePath }) => `${keyword} ${instancePath}`)
  return meant
    .filter((error) => error.keyword !== 'type' || types.get(`type ${error.instancePath}`)?.[0] === error)
    .slice(0, MAX_PROBLEMS)
    .map((error) => {
      const others = error.keyword === 'type' ? (types.get(`type ${error.instancePath}`)?.slice(1) ?? []) : []
      const { path, message } = toProblem(error)
      return { path, message: [message, ...others.map(({ params }) => typeOf(params))].join(' or ') }
    })
}

const typeOf = (params: object) => String((params as { type?: unknown }).type)

/**
 * Whether an error of a union says only that the value is of another branch: that it is not null, where there is another
 * error, and that it is of another type, where the branch of its type says what is wrong.
 */
function isOfOtherBranch(error: SchemaError, all: SchemaError[]): boolean {
  const { keyword, instancePath, params } = error
  if (keyword !== 'type') return false
  if (typeOf(params) === 'null') return true
  return all.some(
    (other) =>
      other.instancePath.startsWith(`${instancePath}/`) ||
      (other.instancePath === instancePath && other.keyword !== 'type'),
  )
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
