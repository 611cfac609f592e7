/** What stands in a log for a value that must not be there. */
export const REDACTED = '[redacted]'

// names without case and separators; of messages, what users wrote
const SECRET =
  /(authorization|cookie|password|passwordhash|passwd|secret|token|apikey|accesskey|privatekey|encryptionkey|credentials?|databaseurl|redisurl)s?$/
const SECRET_NAMES = new Set([
  'key',
  'xapikey',
  'xproxysecret',
  'body',
  'content',
  'toolinput',
  'tooloutput',
  'parameters',
])
const MAX_DEPTH = 8

export function isSecretName(name: string): boolean {
  const plain = name.toLowerCase().replace(/[^a-z0-9]/g, '')
  return SECRET_NAMES.has(plain) || SECRET.test(plain)
}

/** The facts of a log line with the values of secret names replaced, at any depth, and errors made harmless. Never changes its argument. */
export function redactFacts(facts: object): Record<string, unknown> {
  return redactObject(facts, 0)
}

function redactValue(value: unknown, depth: number): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (value instanceof Error) return describeError(value)
  if (value instanceof Date) return value
  if (depth >= MAX_DEPTH) return '[too deep]'
  if (Array.isArray(value)) return value.map((item) => redactValue(item, depth + 1))
  // connections, requests, pools: what hangs on them is anybody's guess
  const prototype = Object.getPrototypeOf(value)
  if (prototype !== null && prototype !== Object.prototype) return `[${value.constructor?.name ?? 'object'}]`
  return redactObject(value, depth + 1)
}

function redactObject(value: object, depth: number): Record<string, unknown> {
  const entries = Object.entries(value).map(([name, item]) => [
    name,
    isSecretName(name) && item !== undefined && item !== null ? REDACTED : redactValue(item, depth),
  ])
  return Object.fromEntries(entries)
}

export type ErrorFacts = {
  type: string
  code?: string
  message: string
  stack?: string
  cause?: ErrorFacts
  /** Of an AggregateError, such as that of a host with several addresses. */
  errors?: ErrorFacts[]
}

const MAX_CAUSES = 5
// SQLSTATE class 22 (data exception) and its like repeat the value: invalid input syntax for type uuid: "…"
const REPEATS_VALUE = /^(22|P0001$)/

/**
 * An error for the log: what kind it is, where it came from, and nothing of the rows it was about. A database's error
 * carries values in `detail`, `where`, `internalQuery` and more, all of which are left out.
 */
export function describeError(error: unknown, depth = 0): ErrorFacts {
  if (!(error instanceof Error))
    return { type: typeof error, message: typeof error === 'string' ? error : '' }
  const { code } = error as { code?: unknown }
  const message = typeof code === 'string' && REPEATS_VALUE.test(code) ? REDACTED : error.message
  const facts: ErrorFacts = { type: error.constructor?.name ?? error.name, message }
  if (typeof code === 'string') facts.code = code
  const frames = error.stack?.match(/^ {4}at .*$/gm)
  if (frames !== undefined && frames !== null) facts.stack = `${facts.type}: ${message}\n${frames.join('\n')}`
  if (depth >= MAX_CAUSES) return facts
  if (error.cause !== undefined && error.cause !== null) facts.cause = describeError(error.cause, depth + 1)
  if (error instanceof AggregateError)
    facts.errors = error.errors.map((item) => describeError(item, depth + 1))
  return facts
}
