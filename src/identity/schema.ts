import { type Static, Type } from 'typebox'
import { closed, EMAIL, KEY_SCOPE, Nullable, Text, Timestamp, USERNAME, Uuid } from '../core/fields.ts'

/** What an API key may allow. `flow:<id>` allows one flow to be read and run. */
export const KEY_SCOPES = ['read', 'write', 'admin', 'ingest'] as const
export type KeyScope = (typeof KEY_SCOPES)[number] | `flow:${string}`

/** On whose behalf a request is made, and what the credential allows. */
export type Identity = {
  userId: string
  /** How the user is known. */
  via: 'single-user' | 'session' | 'key' | 'token' | 'proxy'
  isSuperuser: boolean
  /** Of an API key; absent: all that the user may. */
  scopes?: readonly string[]
  sessionId?: string
  keyId?: string
  /** When the API key expires; absent for one that does not. */
  expiresAtMs?: number
}

export const MIN_PASSWORD = 8
export const MAX_PASSWORD = 1_024

const Username = Type.String({
  pattern: USERNAME,
  description: 'Not case-sensitive; without spaces and @.',
  examples: ['anna'],
})
const Email = Type.String({
  pattern: EMAIL,
  description: 'Not case-sensitive; one can sign in with it.',
  examples: ['anna@example.com'],
})
export const Password = Type.String({
  minLength: MIN_PASSWORD,
  maxLength: MAX_PASSWORD,
  description: 'All of it counts, also what is beyond 72 bytes.',
})
const profile = {
  email: Type.Optional(Nullable(Email)),
  name: Type.Optional(Nullable(Text(255))),
  profileImage: Type.Optional(Nullable(Text(512, { description: 'URL of a picture.' }))),
}

export const NewUser = Type.Object({ username: Username, password: Password, ...profile }, closed)
export type NewUser = Static<typeof NewUser>

/** As a superuser makes it. */
export const NewAccount = Type.Object(
  { ...NewUser.properties, isSuperuser: Type.Optional(Type.Boolean({ default: false })) },
  closed,
)
export type NewAccount = Static<typeof NewAccount>

/** What users change of themselves. */
export const ProfilePatch = Type.Object(profile, { ...closed, minProperties: 1 })
export type ProfilePatch = Static<typeof ProfilePatch>

/** What a superuser changes of a user. */
export const UserPatch = Type.Object(
  {
    ...profile,
    isActive: Type.Optional(Type.Boolean({ description: 'False refuses all credentials of the user.' })),
    isSuperuser: Type.Optional(Type.Boolean()),
  },
  { ...closed, minProperties: 1 },
)
export type UserPatch = Static<typeof UserPatch>

export const UserQuery = Type.Object(
  {
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 200, default: 50 })),
    cursor: Type.Optional(
      Type.String({ maxLength: 1_000, description: '`next_cursor` of the page before.' }),
    ),
    q: Type.Optional(
      Text(255, { description: 'Only users whose id, username, email or name contains this.' }),
    ),
    isActive: Type.Optional(Type.Boolean()),
  },
  closed,
)
export type UserQuery = Static<typeof UserQuery>

/** A user as everybody may see themselves. Never a password, not even as a hash. */
export type User = {
  /** A UUID for accounts made here, the subject for users of an external provider. */
  id: string
  /** Who vouches for the user; `local` is this installation. */
  provider: 'local' | 'jwt' | 'proxy'
  username: string | null
  email: string | null
  name: string | null
  profileImage: string | null
  isActive: boolean
  isSuperuser: boolean
  createdAt: Date
  updatedAt: Date
  lastLoginAt: Date | null
}

/** Of a key that is made without any. */
export const DEFAULT_SCOPES = ['read', 'write']

export const NewApiKey = Type.Object(
  {
    name: Text(255, { minLength: 1 }),
    scopes: Type.Optional(
      Type.Array(Type.String({ pattern: KEY_SCOPE, examples: ['read'] }), {
        minItems: 1,
        maxItems: 100,
        description:
          'What it allows: `read`, `write`, `admin`, `ingest`, `flow:<id>`. Default: `read` and `write`.',
      }),
    ),
    expiresAt: Type.Optional(Nullable(Timestamp({ description: 'Default: never.' }))),
  },
  closed,
)
export type NewApiKey = { name: string; scopes?: string[]; expiresAt?: string | Date | null }

/** An API key without the key itself, which is shown once, when it is made. */
export type ApiKey = {
  id: string
  userId: string
  name: string
  /** How the key begins. */
  prefix: string
  scopes: string[]
  createdAt: Date
  expiresAt: Date | null
  revokedAt: Date | null
  /** Some seconds behind. */
  lastUsedAt: Date | null
  /** Some seconds behind. */
  totalUses: number
}

export const ApiKeyQuery = Type.Object(
  {
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 200, default: 50 })),
    cursor: Type.Optional(Type.String({ maxLength: 500, description: '`next_cursor` of the page before.' })),
    includeRevoked: Type.Optional(Type.Boolean({ default: false })),
  },
  closed,
)
export type ApiKeyQuery = Static<typeof ApiKeyQuery>

export const KeyId = Uuid({ description: 'Id of the API key.' })

/** What a sign-in or a refresh gives. */
export type Tokens = {
  userId: string
  sessionId: string
  /** A JWT, good for `accessExpiresInS`. */
  accessToken: string
  accessExpiresInS: number
  /** Good once. */
  refreshToken: string
  refreshExpiresInS: number
  /** What a page sends with a change, in `x-csrf-token`, when cookies carry the tokens. */
  csrfToken: string
}
