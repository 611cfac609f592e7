import { dataErased, ThreadbaseError } from '../core/errors.ts'

type WithCode = { code?: unknown; message?: unknown }

const SQLSTATE = /^[0-9A-Z]{5}$/
const UNAVAILABLE = /^(08|53|57P0|57014|25P03|40001|40P01)/
// a server that became a standby, a lock that was not to be had, and access that was taken away while we run
const UNAVAILABLE_NOW: [pattern: RegExp, message: string][] = [
  [/^25006$/, 'the database takes no changes at the moment (it is read-only, perhaps after a failover)'],
  [/^(40001|40P01)$/, 'the change collided with another one at the same time: try again'],
  [/^25000$/, 'transactions must be read committed: set default_transaction_isolation of the role to that'],
  [/^55P03$/, 'the database could not take a lock in time'],
  [/^(28|3D000)/, 'the database server refuses the connection: check database, user, password and rights'],
]
const READ_ONLY = '25006'
const LACKS_RIGHT = '42501'
const NOT_MIGRATED = new Set(['42P01', '3F000', '42883', '42703'])
const CHECK_VIOLATION = '23514'
/** Of the trigger refuse_erased. */
const ERASED = 'TB403'
const NETWORK = /^E[A-Z]{4,}$/

/** The SQLSTATE of a server's error (Appendix A of the PostgreSQL manual), or undefined for any other error. */
export function sqlState(error: unknown): string | undefined {
  const code = (error as WithCode | undefined)?.code
  return typeof code === 'string' && SQLSTATE.test(code) && !NETWORK.test(code) ? code : undefined
}

/** What {@link isSqlState} is asked for by who stores rows: a key that is there already, or one that is not. */
export const UNIQUE_VIOLATION = '23505'
export const FOREIGN_KEY_VIOLATION = '23503'

export function isSqlState(error: unknown, ...codes: string[]): boolean {
  const cause = error instanceof ThreadbaseError ? error.cause : error
  const state = sqlState(cause)
  return state !== undefined && codes.includes(state)
}

/** True when the server, not the request, is the reason: what a retry or another moment can cure. */
export function isConnectionLoss(error: unknown): boolean {
  const state = sqlState(error)
  if (state !== undefined) return UNAVAILABLE.test(state)
  const code = (error as WithCode | undefined)?.code
  return typeof code === 'string' && NETWORK.test(code)
}

/** True when the server closes the connection with this error, though the driver may not have noticed yet. */
export function endsSession(error: unknown): boolean {
  const severity = (error as { severity?: unknown } | undefined)?.severity
  return severity === 'FATAL' || severity === 'PANIC'
}

/** True when the connection leads to a server that takes no changes, such as one that became a standby. */
export function isReadOnly(error: unknown): boolean {
  return sqlState(error) === READ_ONLY
}

/**
 * A driver's error as the caller should see it. An error that says nothing to a caller (a constraint that the
 * repository handles, a bug) is returned as it is.
 * @param connectionLost the connection that raised it is gone, whatever the error says
 */
export function mapDbError(error: unknown, connectionLost: boolean): unknown {
  if (error instanceof ThreadbaseError) return error
  const state = sqlState(error)
  const now = UNAVAILABLE_NOW.find(([pattern]) => state !== undefined && pattern.test(state))
  if (now !== undefined) return new ThreadbaseError('unavailable', now[1], undefined, { cause: error })
  if (isConnectionLoss(error) || (connectionLost && state === undefined)) {
    return new ThreadbaseError('unavailable', 'the database is not reachable at the moment', undefined, {
      cause: error,
    })
  }
  if (state === undefined) return error
  if (state === LACKS_RIGHT) {
    const message = `the role of DATABASE_URL lacks a right: ${String((error as WithCode).message)}`
    return new ThreadbaseError('unavailable', message, undefined, { cause: error })
  }
  if (state === ERASED) return dataErased({ cause: error })
  if (NOT_MIGRATED.has(state)) {
    return new ThreadbaseError(
      'unavailable',
      'the database lacks a table or function that this version needs: run `threadbase db upgrade`',
      undefined,
      { cause: error },
    )
  }
  if (state.startsWith('22') || state.startsWith('54') || state === CHECK_VIOLATION) {
    const message = `the database refused a value: ${String((error as WithCode).message)}`
    return new ThreadbaseError('invalid_input', message, undefined, { cause: error })
  }
  return error
}

/** The constraint that a server's error says is broken; undefined for any other error. */
export function brokenConstraint(error: unknown): string | undefined {
  const cause = error instanceof ThreadbaseError ? error.cause : error
  const { constraint } = (cause ?? {}) as { constraint?: unknown }
  return typeof constraint === 'string' ? constraint : undefined
}
