import { type Static, Type } from 'typebox'
import { closed, PROVIDER, Text } from '../core/fields.ts'

/** Of a secret, in bytes of UTF-8. */
export const MAX_SECRET_BYTES = 65_536

/** Whose API a key opens. */
export const Provider = Type.String({
  pattern: PROVIDER,
  description: 'Name of the provider, such as `openai` or `anthropic`.',
  examples: ['openai'],
})

const secret = { minLength: 1, maxLength: MAX_SECRET_BYTES }

export const NewProviderKey = Type.Object(
  {
    apiKey: Type.String({
      ...secret,
      description: "The provider's key. It is never given out again, only its beginning and its end.",
      examples: ['sk-…'],
    }),
  },
  closed,
)
export type NewProviderKey = Static<typeof NewProviderKey>

/** A provider's key of a user, without the key. */
export type ProviderKey = {
  userId: string
  provider: string
  /** The first 6 and the last 4 characters with `****` between, `****` for a key under 16; null when it cannot be read. */
  mask: string | null
  /** False when none of the encryption keys opens it, or what is stored is damaged. */
  isReadable: boolean
  /** Which encryption key it is encrypted with; null for a row that names none. */
  keyId: string | null
  createdAt: Date
  /** When the key was set last. */
  updatedAt: Date
}

export const VARIABLE_TYPES = ['credential', 'generic'] as const
export type VariableType = (typeof VARIABLE_TYPES)[number]

const name = Text(255, { minLength: 1, description: 'Unique among the variables of the user.' })
const value = Type.String({ ...secret, description: 'Stored encrypted, as it is.' })
const defaultFields = Type.Array(Text(255, { minLength: 1 }), {
  maxItems: 100,
  description: 'Names of the component fields that it fills unless they say otherwise.',
})

export const NewVariable = Type.Object(
  {
    name,
    value,
    type: Type.Optional(
      Type.Enum([...VARIABLE_TYPES], {
        default: 'credential',
        description: 'The value of a `credential` is never given out again.',
      }),
    ),
    defaultFields: Type.Optional(defaultFields),
  },
  closed,
)
export type NewVariable = Omit<Static<typeof NewVariable>, 'type'> & { type?: VariableType }

export const VariablePatch = Type.Object(
  {
    name: Type.Optional(name),
    value: Type.Optional(value),
    type: Type.Optional(
      Type.Enum([...VARIABLE_TYPES], {
        description: 'A `credential` becomes `generic` only together with a new value.',
      }),
    ),
    defaultFields: Type.Optional(defaultFields),
  },
  { ...closed, minProperties: 1 },
)
export type VariablePatch = Omit<Static<typeof VariablePatch>, 'type'> & { type?: VariableType }

export const VariableQuery = Type.Object(
  {
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 100, default: 50 })),
    cursor: Type.Optional(
      Type.String({ maxLength: 3_000, description: '`next_cursor` of the page before.' }),
    ),
  },
  closed,
)
export type VariableQuery = Static<typeof VariableQuery>

/** A named secret or setting of a user. */
export type Variable = {
  id: string
  userId: string
  name: string
  type: VariableType
  /** Of a generic one; null for a credential, and when it cannot be read. */
  value: string | null
  /** The first 6 and the last 4 characters with `****` between, `****` for a value under 16; null when it cannot be read. */
  mask: string | null
  /** False when none of the encryption keys opens it, or what is stored is damaged. */
  isReadable: boolean
  /** Which encryption key it is encrypted with; null for a row that names none. */
  keyId: string | null
  /** Names of the component fields that it fills unless they say otherwise. */
  defaultFields: string[]
  createdAt: Date
  updatedAt: Date
}
