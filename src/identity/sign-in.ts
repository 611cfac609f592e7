import type { Actor } from '../audit/schema.ts'
import type { AuditService } from '../audit/service.ts'
import type { Limiter } from '../cache/limiter.ts'
import { ThreadbaseError } from '../core/errors.ts'
import type { Db } from '../db/schema.ts'
import { addressGroup } from './addresses.ts'
import type { Passwords } from './passwords.ts'
import type { Tokens, User } from './schema.ts'
import { fingerprint } from './secrets.ts'
import type { SessionService } from './sessions/service.ts'
import { type AuthSettings, LOGIN_WINDOW_S } from './settings.ts'
import * as repo from './users/repo.ts'
import { normalizeLogin } from './users/service.ts'

/** Where a request came from, for limits and the audit log. */
export type Origin = Pick<Actor, 'address' | 'requestId'>

type Parts = {
  audit: AuditService
  limiter: Limiter
  passwords: Passwords
  sessions: SessionService
  limits: AuthSettings['loginLimits']
}

/** Who tried to sign in under a name that nobody has; accounts have UUIDs. */
const UNKNOWN = 'unknown'

export type SignIn = ReturnType<typeof createSignIn>

/** Signing in with a password, and how often that may be tried. */
export function createSignIn(db: Db, { audit, limiter, passwords, sessions, limits }: Parts) {
  const take = (key: string, limit: number, by: number) =>
    limiter.take(`login:${key}`, { limit, windowS: LOGIN_WINDOW_S, by })
  const takeOfUser = (login: string, by: number) =>
    take(`user:${fingerprint(login).slice(0, 32)}`, limits.perUser, by)
  const takeOfAddress = (address: string, by: number) =>
    take(`address:${addressGroup(address)}`, limits.perAddress, by)

  /** Counts an attempt before anything else is done. @throws rate_limited @internal */
  async function countAttempt(login: string, { address }: Origin): Promise<void> {
    // an address that is refused must not use up the attempts of one user after another
    const ofAddress = address === undefined ? undefined : await takeOfAddress(address, 1)
    if (ofAddress?.allowed === false) throw tooMany(ofAddress.resetS)
    const ofUser = await takeOfUser(login, 1)
    if (!ofUser.allowed) throw tooMany(ofUser.resetS)
  }

  /** A right password was no attempt to guess. @internal */
  const forgiveAttempt = async (login: string, { address }: Origin) => {
    await Promise.all([takeOfUser(login, -1), address === undefined ? undefined : takeOfAddress(address, -1)])
  }

  return {
    countAttempt,
    forgiveAttempt,

    /**
     * Checks username or email, and password, and opens a session. An unknown user takes as long as a wrong password.
     * @throws unauthorized, which does not say which of the two was wrong; rate_limited
     */
    async signIn(
      { login, password }: { login: string; password: string },
      origin: Origin,
    ): Promise<{ user: User; tokens: Tokens }> {
      const name = normalizeLogin(login)
      await countAttempt(name, origin)
      const account =
        name.includes('\0') || !name.isWellFormed() ? undefined : await repo.findAccount(db, name)
      const hash = account?.passwordHash ?? null
      const right = await passwords.verify(password, hash)
      if (account === undefined || hash === null) {
        // what was typed may be a password: it is written down nowhere. That somebody tried is, and takes its time
        await audit.record({ userId: UNKNOWN, via: 'password', ...origin }, 'sign_in_failed', UNKNOWN)
        throw wrong()
      }
      const { user } = account
      const actor: Actor = { userId: user.id, via: 'password', ...origin }
      if (!right || !user.isActive) {
        await audit.record(actor, 'sign_in_failed', user.id)
        if (!right) throw wrong()
        throw new ThreadbaseError('unauthorized', 'the account is deactivated', { reason: 'deactivated' })
      }
      const tokens = await sessions.open(user.id, await renew(user.id, password, hash))
      await Promise.all([
        forgiveAttempt(name, origin),
        repo.noteLogin(db, user.id),
        audit.record(actor, 'sign_in', user.id, `session ${tokens.sessionId}`),
      ])
      return { user, tokens }
    },
  }

  /** The hash, made anew when it has another cost than new ones get. */
  async function renew(userId: string, password: string, hash: string): Promise<string> {
    if (!passwords.isOutdated(hash)) return hash
    const renewed = await passwords.hash(password)
    return (await repo.setPasswordHash(db, userId, renewed, hash)) ? renewed : hash
  }
}

function wrong(): ThreadbaseError {
  return new ThreadbaseError('unauthorized', 'the username or the password is wrong')
}

function tooMany(retryAfterS: number): ThreadbaseError {
  return new ThreadbaseError('rate_limited', `too many attempts to sign in: try again in ${retryAfterS} s`, {
    retryAfterS,
  })
}
