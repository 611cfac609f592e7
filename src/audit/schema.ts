import { type Static, Type } from 'typebox'
import { closed, Text } from '../core/fields.ts'

/** What is written down. Reading one's own rows and ordinary changes are not. */
export const AUDIT_ACTIONS = [
  'sign_in',
  'sign_in_failed',
  'sign_out',
  'refresh_token_reused',
  'user_created',
  'user_changed',
  'user_deactivated',
  'user_activated',
  'user_promoted',
  'user_demoted',
  'password_changed',
  'password_reset',
  'api_key_created',
  'api_key_revoked',
  'api_key_used',
  'provider_key_set',
  'provider_key_deleted',
  'provider_key_used',
  'variable_created',
  'variable_changed',
  'variable_deleted',
  'encryption_key_changed',
  'tier_changed',
  'data_exported',
  'data_erased',
  'user_readmitted',
  'users_listed',
  'data_read',
] as const
export type AuditAction = (typeof AUDIT_ACTIONS)[number]

/** Who does something, and how that is known: for the audit log. */
export type Actor = {
  userId: string
  via: 'single-user' | 'session' | 'key' | 'token' | 'proxy' | 'password' | 'cli' | 'library'
  /** Where the request came from. */
  address?: string
  requestId?: string
}

/** One line of the audit log. Never the contents of what was read or changed. */
export type AuditEntry = {
  id: string
  /** Whose account or data it is about. */
  userId: string
  at: Date
  /** Who did it. */
  actorId: string
  via: string
  action: AuditAction
  /** The record, such as `api_key 0198…`, or the path that was read. Null for the account itself. */
  target: string | null
  address: string | null
  requestId: string | null
}

export const AuditQuery = Type.Object(
  {
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 200, default: 50 })),
    cursor: Type.Optional(Type.String({ maxLength: 500, description: '`next_cursor` of the page before.' })),
    userId: Type.Optional(Text(255, { description: 'Only what is about this user.' })),
    actorId: Type.Optional(Text(255, { description: 'Only what this user did.' })),
    action: Type.Optional(Type.Enum([...AUDIT_ACTIONS])),
  },
  closed,
)
export type AuditQuery = Omit<Static<typeof AuditQuery>, 'action'> & { action?: AuditAction }
