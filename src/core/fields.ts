import { type TSchema, type TSchemaOptions, Type } from 'typebox'

const STORABLE = '^[^\\u0000\\ud800-\\udfff]*$'
const UUID = '^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$'
const INSTANT = '^\\d{4}-\\d\\d-\\d\\d[Tt ]\\d\\d:\\d\\d:\\d\\d(\\.\\d{1,9})?([Zz]|[+-]\\d\\d:\\d\\d)$'
export const USERNAME = '^[^@\\s\\u0000-\\u001f\\u007f\\ud800-\\udfff]{1,255}$'
export const EMAIL =
  '^[^@\\s\\u0000-\\u001f\\u007f\\ud800-\\udfff]{1,64}@[^@\\s\\u0000-\\u001f\\u007f\\ud800-\\udfff]{1,190}$'
export const PROVIDER = '^[a-z0-9][a-z0-9._-]{0,62}$'
export const KEY_SCOPE = '^(read|write|admin|ingest|flow:[A-Za-z0-9._-]{1,100})$'

export const VERSION_NUMBER = '^[1-9]\\d{0,8}$'

/** What a pattern asks for, in words: a regular expression is no error message. */
export const PATTERN_MEANINGS: ReadonlyMap<string, string> = new Map([
  [STORABLE, 'must not hold NUL or half of a surrogate pair'],
  [UUID, 'must be a UUID'],
  [VERSION_NUMBER, 'must be the number of a version, from 1'],
  [USERNAME, 'must be 1 to 255 characters without spaces and @'],
  [EMAIL, 'must be an email address'],
  [KEY_SCOPE, 'must be read, write, admin, ingest or flow:<id>'],
  [
    PROVIDER,
    'must be 1 to 63 lower-case letters, digits, dots, hyphens and underscores, beginning with a letter or digit',
  ],
  [INSTANT, 'must be an RFC 3339 time such as 2026-01-31T12:00:00Z'],
])

/** Text that a `text` column can hold as it is: no NUL, no lone surrogate. `maxLength` in characters. */
export const Text = (maxLength: number, options: TSchemaOptions = {}) =>
  Type.String({ maxLength, pattern: STORABLE, ...options })

export const Nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()])

/** A JSON object whose fields are the caller's own. */
export const JsonObject = (options: TSchemaOptions = {}) =>
  Type.Record(Type.String(), Type.Unknown(), options)

/** Any JSON value. */
export const AnyJson = (options: TSchemaOptions = {}) => Type.Unknown(options)

export const Uuid = (options: TSchemaOptions = {}) =>
  Type.String({ pattern: UUID, examples: ['0192f0c1-2f6b-7cc0-8d2e-5f0a6d2f4b11'], ...options })

/** An instant, kept to the millisecond. */
export const Timestamp = (options: TSchemaOptions = {}) => Type.String({ pattern: INSTANT, ...options })

/** Objects refuse fields they do not know: a misspelt field is an error, not a loss. */
export const closed = { additionalProperties: false } as const
