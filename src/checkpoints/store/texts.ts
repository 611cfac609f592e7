/**
 * Where the texts of an item are, after IndexConfig of `@langchain/langgraph-checkpoint`: `$` is the whole value,
 * `title` a field, `meta.title` a field of a field, `chapters[0]` and `chapters[-1]` an element from the front or the
 * back, `chapters[*].text` the same of every element, and `*` every field.
 */
export type TextPath = readonly Step[]
type Step = { field: string } | { index: number } | 'each'

/** @returns undefined for what is not a path */
export function parsePath(path: string): TextPath | undefined {
  if (path === '$') return []
  const steps: Step[] = []
  for (const part of path.split('.')) {
    const match = /^([^[\]]*)((?:\[(?:\*|-?\d+)\])*)$/.exec(part)
    if (match === null || part === '') return undefined
    const [, field = '', indexes = ''] = match
    if (field !== '') steps.push(field === '*' ? 'each' : { field })
    for (const [, index = ''] of indexes.matchAll(/\[([^\]]*)\]/g))
      steps.push(index === '*' ? 'each' : { index: Number(index) })
  }
  return steps
}

/** The values at a path, in order. */
export function valuesAt(value: unknown, [step, ...rest]: TextPath): unknown[] {
  if (step === undefined) return [value]
  if (typeof value !== 'object' || value === null) return []
  if (step === 'each') return Object.values(value).flatMap((one) => valuesAt(one, rest))
  if ('index' in step) return Array.isArray(value) ? present(value.at(step.index), rest) : []
  return Object.hasOwn(value, step.field) ? present((value as Record<string, unknown>)[step.field], rest) : []
}

const present = (value: unknown, rest: TextPath) => (value === undefined ? [] : valuesAt(value, rest))

/** What is embedded for a value: texts, numbers and booleans as they are, others as their JSON. Nothing for null. */
export function toText(value: unknown): string | undefined {
  if (value === null || value === undefined) return undefined
  return typeof value === 'object' ? JSON.stringify(value, null, 2) : String(value)
}

/** The texts and numbers anywhere in a value, for a search by words: no names of fields. */
export function wordsOf(value: unknown): string[] {
  if (typeof value === 'string') return [value]
  if (typeof value === 'number') return [String(value)]
  if (typeof value !== 'object' || value === null) return []
  return Object.values(value).flatMap(wordsOf)
}
