import { randomBytes } from 'node:crypto'
import type { AuditService } from '../audit/service.ts'
import type { Bus } from '../bus/bus.ts'
import type { Cache } from '../cache/cache.ts'
import type { Limiter } from '../cache/limiter.ts'
import { dataErased, ThreadbaseError } from '../core/errors.ts'
import type { Logger } from '../core/log.ts'
import { setNewest } from '../core/newest.ts'
import type { Database } from '../db/database.ts'
import { createChecks } from './checks.ts'
import { createExternalVerifier, type ExternalUser, type ExternalVerifier } from './external.ts'
import { createKeyService, type KeyService } from './keys/service.ts'
import { createPasswords } from './passwords.ts'
import type { Identity } from './schema.ts'
import { fingerprint } from './secrets.ts'
import { createSessionService, type SessionService } from './sessions/service.ts'
import type { AuthSettings } from './settings.ts'
import { createSignIn, type SignIn } from './sign-in.ts'
import { createTokenSigner } from './tokens.ts'
import { createUserService, type Standing, type UserService } from './users/service.ts'

export { actorOf } from './actor.ts'
export { addressGroup } from './addresses.ts'
export { readOrMakeSecret, readSecret } from './secret-file.ts'
export type { AuthMode, AuthSettings } from './settings.ts'
export { normalizeLogin } from './users/service.ts'

/** Who is behind a credential, with what that knows of users, keys and sessions. */
export type IdentityService = {
  readonly users: UserService
  readonly keys: KeyService
  readonly sessions: SessionService
  readonly signIn: SignIn
  /** Who has this API key. @throws unauthorized */
  ofKey(key: string): Promise<Identity>
  /** Who has this access token of ours. @throws unauthorized */
  ofAccessToken(token: string): Promise<Identity>
  /** Who has this token of the external provider. @throws unauthorized; unavailable without the provider's keys */
  ofExternalToken(token: string): Promise<Identity>
  /** The user whom a proxy names, which must have proven itself before. @throws unauthorized */
  ofProxy(userId: string): Promise<Identity>
  /** After a user's data was erased, or the user was let in again: every server asks the database anew. @internal */
  forget(userId: string): Promise<void>
  close(): Promise<void>
}

export type IdentityParts = {
  database: Database
  cache: Cache
  bus: Bus
  limiter: Limiter
  audit: AuditService
  log: Logger
}

// how long the signature of an external token counts as checked, so that a key that is withdrawn stops working
const VERIFIED_MS = 5 * 60_000
const MAX_VERIFIED = 10_000
const SWEEP_MS = 60 * 60_000

const ACTIVE: Pick<Standing, 'isActive' | 'isSuperuser'> = { isActive: true, isSuperuser: false }

/** Users, their API keys and sign-ins, and who is behind a credential. */
export async function createIdentityService(
  parts: IdentityParts,
  settings: AuthSettings,
): Promise<IdentityService> {
  const { database, audit, limiter, log } = parts
  const { db } = database
  const checks = await createChecks({ ...parts, alone: database.engine !== 'postgres' })
  const passwords = createPasswords(settings.bcryptCost)
  if (settings.mode === 'accounts') void passwords.warmUp()
  const signer = createTokenSigner({
    secrets: settings.secrets ?? [randomBytes(32).toString('base64url')],
    accessTtlS: settings.accessTtlS,
    refreshTtlS: settings.refreshTtlS,
  })
  const sessions = createSessionService(db, { audit, checks, signer })
  const users = createUserService(db, { audit, checks, passwords, sessions })
  // where there is no row to keep, who vouches for a user has the last word
  const ensure = database.engine === 'none' ? async () => ACTIVE : users.ensure
  const keys = createKeyService(database, { audit, checks, log })
  const signIn = createSignIn(db, { audit, limiter, passwords, sessions, limits: settings.loginLimits })
  const verify = settings.external && rememberVerified(createExternalVerifier(settings.external))
  const sweeper = startSweeper(sessions, settings, log)

  return {
    users,
    keys,
    sessions,
    signIn,

    async ofKey(key) {
      const { userId, keyId, scopes, expiresAtMs } = await keys.authenticate(key)
      const expiry = expiresAtMs === null ? {} : { expiresAtMs }
      return { userId, via: 'key', keyId, scopes, ...expiry, ...statusOf(await users.standing(userId)) }
    },

    async ofAccessToken(token) {
      const { userId, sessionId } = await sessions.authenticate(token)
      return { userId, via: 'session', sessionId, ...statusOf(await users.standing(userId)) }
    },

    async ofExternalToken(token) {
      if (verify === undefined) throw new ThreadbaseError('unauthorized', 'the token is not valid')
      const { userId, email, name } = await verify(token)
      const standing = await ensure({ id: userId, provider: 'jwt', email, name })
      return { userId, via: 'token', ...statusOf(standing) }
    },

    async ofProxy(userId) {
      return { userId, via: 'proxy', ...statusOf(await ensure({ id: userId, provider: 'proxy' })) }
    },

    async forget(userId) {
      const [ofSessions, ofKeys] = await Promise.all([sessions.cacheKeys(userId), keys.cacheKeys(userId)])
      await checks.forget(users.cacheKey(userId), ...ofSessions, ...ofKeys)
    },

    async close() {
      clearInterval(sweeper)
      await keys.close()
      await checks.close()
    },
  }
}

/** @throws forbidden for a user whose data was erased; unauthorized for one who is gone or deactivated */
function statusOf(standing: Omit<Standing, 'provider'> | undefined): { isSuperuser: boolean } {
  if (standing?.isErased === true) throw dataErased()
  if (standing?.isActive === true) return { isSuperuser: standing.isSuperuser }
  throw new ThreadbaseError('unauthorized', 'the account is deactivated', { reason: 'deactivated' })
}

/** A signature is checked once in a while, not with each request. */
function rememberVerified(verify: ExternalVerifier): ExternalVerifier {
  const verified = new Map<string, { user: ExternalUser; until: number }>()
  return async (token) => {
    const key = fingerprint(token)
    const known = verified.get(key)
    if (known !== undefined && known.until > Date.now()) return known.user
    verified.delete(key)
    const user = await verify(token)
    setNewest(
      verified,
      key,
      { user, until: Math.min(user.expiresAtMs, Date.now() + VERIFIED_MS) },
      MAX_VERIFIED,
    )
    return user
  }
}

function startSweeper(
  sessions: SessionService,
  { mode }: AuthSettings,
  log: Logger,
): NodeJS.Timeout | undefined {
  if (mode !== 'accounts') return undefined
  const sweep = () =>
    sessions.sweep().catch((error) => log.warn({ err: error }, 'ended sessions could not be removed'))
  return setInterval(() => void sweep(), SWEEP_MS).unref()
}
