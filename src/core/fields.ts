import { type TSchema, type TSchemaOptions, Type } from 'typebox'

/** Text that a `text` column can hold as it is: no NUL, no lone surrogate. `maxLength` in code points. */
export const Text = (maxLength: number, options: TSchemaOptions = {}) =>
  Type.String({ maxLength, pattern: '^[^\\u0000\\ud800-\\udfff]*$', ...options })

export const Nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()])

/** A JSON object whose fields are the caller's own. */
export const JsonObject = (options: TSchemaOptions = {}) =>
  Type.Record(Type.String(), Type.Unknown(), options)

/** Any JSON value. */
export const AnyJson = (options: TSchemaOptions = {}) => Type.Unknown(options)

export const Uuid = (options: TSchemaOptions = {}) =>
  Type.String({
    pattern: '^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$',
    examples: ['0192f0c1-2f6b-7cc0-8d2e-5f0a6d2f4b11'],
    ...options,
  })

/** An RFC 3339 instant such as 2026-01-31T12:00:00Z; kept to the millisecond. */
export const Timestamp = (options: TSchemaOptions = {}) =>
  Type.String({
    pattern: '^\\d{4}-\\d\\d-\\d\\d[Tt ]\\d\\d:\\d\\d:\\d\\d(\\.\\d{1,9})?([Zz]|[+-]\\d\\d:\\d\\d)$',
    ...options,
  })

/** Objects refuse fields they do not know: a misspelt field is an error, not a loss. */
export const closed = { additionalProperties: false } as const
