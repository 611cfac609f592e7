import { InvalidNamespaceError } from '@langchain/langgraph-checkpoint'
import { ThreadbaseError } from '../../core/errors.ts'

const END = '\u0001'
const AFTER_END = '\u0002'
const ESCAPE = '\u0002'
// An entry of a btree index holds 2704 bytes at most.
const MAX_KEY_BYTES = 2_400
/** Of LangGraph itself. */
const RESERVED_ROOT = 'langgraph'

/**
 * The labels as one text: see the column in migrations/0006_store.sql.
 * @throws invalid_input for a label that is not a text, empty, or holds NUL or a lone surrogate
 */
export function toPath(namespace: readonly string[]): string {
  requireLabels(namespace, 'namespace')
  return namespace.map((label) => escapeLabel(label) + END).join('')
}

const escapeLabel = (label: string) => label.replaceAll(ESCAPE, ESCAPE + ESCAPE).replaceAll(END, ESCAPE + END)

/** All paths that begin with these labels, from the first to below the second; undefined: to the end. */
export function pathRange(prefix: readonly string[]): [from: string, below: string | undefined] {
  const from = toPath(prefix)
  return [from, from === '' ? undefined : from.slice(0, -1) + AFTER_END]
}

/** A place for an item: in a namespace that has labels, and not longer than an index takes. */
export function requirePlace(userId: string, path: string, key: string): void {
  if (path === '') throw refused('namespace must have a label at least', 'namespace')
  const bytes = Buffer.byteLength(userId) + Buffer.byteLength(path) + Buffer.byteLength(key)
  if (bytes > MAX_KEY_BYTES) {
    throw refused(
      `namespace and key together must not be longer than ${MAX_KEY_BYTES} bytes with the user's id; they are ${bytes}`,
      'namespace',
    )
  }
}

export function requireOwnRoot(namespace: readonly string[]): void {
  if (namespace[0] !== RESERVED_ROOT) return
  throw refused(
    `the first label of namespace cannot be "${RESERVED_ROOT}": it is LangGraph's own`,
    'namespace',
  )
}

export function requireLabels(labels: unknown, field: string): asserts labels is string[] {
  if (!Array.isArray(labels)) throw refused(`${field} must be an array of labels`, field)
  for (const label of labels as unknown[]) {
    if (typeof label !== 'string')
      throw refused(`a label of ${field} must be a text, not ${typeof label}`, field)
    if (label === '') throw refused(`a label of ${field} must not be empty`, field)
    if (!label.isWellFormed() || label.includes('\0'))
      throw refused(`a label of ${field} must not hold NUL or a lone surrogate`, field)
  }
}

function refused(message: string, field: string): ThreadbaseError {
  return new ThreadbaseError(
    'invalid_input',
    message,
    { field },
    { cause: new InvalidNamespaceError(message) },
  )
}
