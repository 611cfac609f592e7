import { encodeJsonb } from '../../core/json.ts'
import { invalid } from '../run-config.ts'

const OPERATORS = new Set(['$eq', '$ne', '$gt', '$gte', '$lt', '$lte', '$in', '$nin'] as const)
type Operator = typeof OPERATORS extends Set<infer T> ? T : never

/** What must hold of one field of a value. Texts are as jsonb holds them (see core/json.ts). */
export type Condition = {
  field: string
  /** The field of the value whose fields are meant; undefined: those of the value itself. */
  under?: string
  operator: Operator | 'absent' | 'present'
  /** As text for jsonb. */
  operand: string
  type: 'null' | 'string' | 'number' | 'boolean' | 'array' | 'object'
  /** Of a string, as jsonb holds it. */
  text?: string
}

/**
 * The conditions of a search's filter, all of which must hold. A field of the filter is a field of the value; what it
 * must be is a JSON value or an object of operators. `$eq` and `$ne` compare any two values, and a field that is missing
 * is not equal to anything; the comparisons hold between two values of one type.
 * @param under the field of the value whose fields are meant; default: those of the value itself
 * @throws invalid_input that names the field
 */
export function readFilter(filter: unknown, under?: string): Condition[] {
  if (filter === undefined || filter === null) return []
  if (!isPlainObject(filter)) throw invalid('filter must be an object', 'filter')
  const conditions = Object.entries(filter).flatMap(([name, wanted]) => {
    const field = storable(name)
    const operators = readOperators(name, wanted)
    if (operators === undefined) return [toCondition(name, field, '$eq', wanted)]
    return operators.map(([operator, operand]) => toCondition(name, field, operator, operand))
  })
  return under === undefined ? conditions : conditions.map((condition) => ({ ...condition, under }))
}

function readOperators(name: string, wanted: unknown): [Operator, unknown][] | undefined {
  if (!isPlainObject(wanted)) return undefined
  const entries = Object.entries(wanted)
  if (!entries.some(([key]) => key.startsWith('$'))) return undefined
  const unknown = entries.find(([key]) => !OPERATORS.has(key as Operator))?.[0]
  if (unknown === undefined) return entries as [Operator, unknown][]
  throw invalid(
    `filter.${name} has the operator ${unknown}, which is not one of ${[...OPERATORS].join(', ')}`,
    `filter.${name}`,
  )
}

function toCondition(name: string, field: string, operator: Operator, operand: unknown): Condition {
  if (operand === undefined && (operator === '$eq' || operator === '$ne')) {
    return { field, operator: operator === '$eq' ? 'absent' : 'present', operand: 'null', type: 'null' }
  }
  if ((operator === '$in' || operator === '$nin') && !Array.isArray(operand))
    throw invalid(`filter.${name}.${operator} must be an array`, `filter.${name}`)
  const text = toJsonb(name, operand)
  const stored: unknown = JSON.parse(text)
  const type = typeOf(stored, text)
  return { field, operator, operand: text, type, ...(typeof stored === 'string' && { text: stored }) }
}

function toJsonb(name: string, operand: unknown): string {
  try {
    if (typeof operand === 'number' && !Number.isFinite(operand)) throw new Error(`${operand} is not JSON`)
    return encodeJsonb(operand)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw invalid(`filter.${name} cannot be compared with: ${reason}`, `filter.${name}`)
  }
}

function typeOf(value: unknown, text: string): Condition['type'] {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'array'
  const type = typeof value
  if (type === 'string' || type === 'number' || type === 'boolean' || type === 'object') return type
  throw new Error(`JSON is of no other type: ${text}`)
}

/** A key or text as jsonb holds it. */
function storable(text: string): string {
  return JSON.parse(encodeJsonb(text)) as string
}

function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false
  const prototype = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}
