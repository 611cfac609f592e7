/** Every code an operation can fail with. `docs/errors.md` says what each means to a caller. */
export const ERROR_CODES = [
  'not_found',
  'invalid_input',
  'unauthorized',
  'forbidden',
  'conflict',
  'too_large',
  'quota_exceeded',
  'rate_limited',
  'unavailable',
  'unsupported',
] as const

export type ErrorCode = (typeof ERROR_CODES)[number]

/** The HTTP status of each code: the only table of its kind. */
export const HTTP_STATUS: Record<ErrorCode, number> = {
  not_found: 404,
  invalid_input: 400,
  unauthorized: 401,
  forbidden: 403,
  conflict: 409,
  too_large: 413,
  quota_exceeded: 429,
  rate_limited: 429,
  unavailable: 503,
  unsupported: 501,
}

/** The exit code of the command line tool for each code. 1 is any other failure. */
export const EXIT_CODE: Record<ErrorCode, number> = {
  not_found: 3,
  invalid_input: 2,
  unauthorized: 4,
  forbidden: 4,
  conflict: 5,
  too_large: 2,
  quota_exceeded: 6,
  rate_limited: 6,
  unavailable: 7,
  unsupported: 8,
}

export type ErrorDetails = Record<string, unknown>

/** The one error that callers are meant to see: a code to branch on, a sentence to read, facts in `details`. */
export class ThreadbaseError extends Error {
  readonly code: ErrorCode
  readonly details: ErrorDetails | undefined

  constructor(code: ErrorCode, message: string, details?: ErrorDetails, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'ThreadbaseError'
    this.code = code
    this.details = details
  }
}

/** For a user whose data was erased: nothing of theirs is stored until somebody lets them in again. */
export function dataErased(options?: { cause?: unknown }): ThreadbaseError {
  const message =
    'the data of this user was erased, and nothing more is taken; an operator can let them in again (threadbase gdpr readmit)'
  return new ThreadbaseError('forbidden', message, { reason: 'erased' }, options)
}

export function isThreadbaseError(error: unknown, code?: ErrorCode): error is ThreadbaseError {
  return error instanceof ThreadbaseError && (code === undefined || error.code === code)
}
