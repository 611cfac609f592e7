import type { Actor } from '../../audit/schema.ts'
import type { AuditService } from '../../audit/service.ts'
import { ThreadbaseError } from '../../core/errors.ts'
import { isUuid, newId } from '../../core/ids.ts'
import { setNewest } from '../../core/newest.ts'
import type { Db } from '../../db/schema.ts'
import type { Checks } from '../checks.ts'
import type { Tokens } from '../schema.ts'
import { fingerprint } from '../secrets.ts'
import type { AccessClaims, TokenSigner } from '../tokens.ts'
import * as repo from './repo.ts'

export type SessionService = ReturnType<typeof createSessionService>

type Parts = { audit: AuditService; checks: Checks; signer: TokenSigner }

const sessionKey = (id: string) => `session:${id}`

// verified access tokens of this process
const MAX_VERIFIED = 10_000

/** Sign-ins: each is a family of refresh tokens, of which one is good at a time. */
export function createSessionService(db: Db, { audit, checks, signer }: Parts) {
  const verified = new Map<string, AccessClaims>()

  async function issue(userId: string, sessionId: string, generation: number): Promise<Tokens> {
    const [accessToken, refreshToken] = await Promise.all([
      signer.signAccess(userId, sessionId),
      signer.signRefresh({ userId, sessionId, generation }),
    ])
    return {
      userId,
      sessionId,
      accessToken,
      accessExpiresInS: signer.accessTtlS,
      refreshToken,
      refreshExpiresInS: signer.refreshTtlS,
      csrfToken: signer.csrfToken(sessionId),
    }
  }

  /** The claims of a good access token. Its signature is checked once; whether its session still lives, by the caller. */
  async function readAccess(token: string): Promise<AccessClaims> {
    const key = fingerprint(token)
    const known = verified.get(key)
    if (known !== undefined && known.expiresAtMs > Date.now()) return known
    verified.delete(key)
    const claims = await signer.readAccess(token)
    if (!isUuid(claims.sessionId)) throw unauthorized('the token is not valid', 'invalid')
    setNewest(verified, key, claims, MAX_VERIFIED)
    return claims
  }

  async function revoke(userId: string, sessionId: string): Promise<boolean> {
    const revoked = await repo.revokeSession(db, userId, sessionId)
    await checks.forget(sessionKey(sessionId))
    return revoked
  }

  async function forgetAll(ids: string[]): Promise<void> {
    if (ids.length > 0) await checks.forget(...ids.map(sessionKey))
  }

  return {
    /**
     * Signs a user in whose password was checked against the hash.
     * @throws unauthorized when the password was changed, or the user deactivated, meanwhile
     * @internal
     */
    async open(userId: string, passwordHash: string): Promise<Tokens> {
      const sessionId = newId()
      const opened = await repo.insertSession(db, userId, sessionId, {
        passwordHash,
        ttlS: signer.refreshTtlS,
      })
      if (!opened) throw unauthorized('the account was changed at the same moment', 'ended')
      return issue(userId, sessionId, 1)
    },

    /**
     * New tokens for a refresh token, which is used up. One that was used before is stolen, or repeated by mistake: its
     * whole session ends.
     * @throws unauthorized
     */
    async refresh(token: string, from: Pick<Actor, 'address' | 'requestId'>): Promise<Tokens> {
      const { userId, sessionId, generation } = await signer.readRefresh(token)
      if (!isUuid(sessionId) || !Number.isInteger(generation))
        throw unauthorized('the token is not valid', 'invalid')
      if (await repo.advance(db, userId, sessionId, generation, signer.refreshTtlS))
        return issue(userId, sessionId, generation + 1)
      if (await revoke(userId, sessionId)) {
        await audit.record(
          { userId, via: 'token', ...from },
          'refresh_token_reused',
          userId,
          `session ${sessionId}`,
        )
        throw unauthorized('the refresh token was used before: its session has ended', 'reused')
      }
      throw unauthorized('the session has ended', 'ended')
    },

    /**
     * The user of an access token whose session lives.
     * @throws unauthorized
     */
    async authenticate(token: string): Promise<{ userId: string; sessionId: string }> {
      const { userId, sessionId } = await readAccess(token)
      const live = await checks.read(sessionKey(sessionId), async () =>
        (await repo.isLive(db, userId, sessionId)) ? { userId } : undefined,
      )
      if (live?.userId !== userId) throw unauthorized('the session has ended', 'ended')
      return { userId, sessionId }
    },

    /** The session that a refresh token belongs to, used up or not, ended or not. @throws unauthorized */
    async ofRefreshToken(token: string): Promise<{ userId: string; sessionId: string }> {
      const { userId, sessionId } = await signer.readRefresh(token)
      if (!isUuid(sessionId)) throw unauthorized('the token is not valid', 'invalid')
      return { userId, sessionId }
    },

    /** The session that an access token belongs to, ended or not. @throws unauthorized */
    async ofAccessToken(token: string): Promise<{ userId: string; sessionId: string }> {
      const { userId, sessionId } = await readAccess(token)
      return { userId, sessionId }
    },

    /** Under what the user's sign-ins are remembered. @internal */
    cacheKeys: async (userId: string): Promise<string[]> =>
      (await repo.listSessionIds(db, userId)).map(sessionKey),

    /** Ends the actor's sign-in, on every server. Again: no change. */
    async signOut(actor: Actor, sessionId: string): Promise<void> {
      if (await revoke(actor.userId, sessionId))
        await audit.record(actor, 'sign_out', actor.userId, `session ${sessionId}`)
    },

    /** Ends all sign-ins of the actor, on every server, if that of `sessionId` has not ended already. */
    async signOutAll(actor: Actor, sessionId: string): Promise<void> {
      if (!(await repo.isLive(db, actor.userId, sessionId))) return
      const ended = await repo.revokeSessions(db, actor.userId, undefined)
      await forgetAll(ended)
      if (ended.length > 0) await audit.record(actor, 'sign_out', actor.userId, 'all sessions')
    },

    /**
     * Makes a change of a user and ends all their sign-ins, or all but one, in one transaction: a process that is killed
     * in between must not leave a new password with old sessions. What the change gave.
     */
    async revokeAlong<T>(userId: string, change: (tx: Db) => Promise<T>, except?: string): Promise<T> {
      const { changed, ended } = await db.transaction().execute(async (tx) => ({
        changed: await change(tx),
        ended: await repo.revokeSessions(tx, userId, except),
      }))
      await forgetAll(ended)
      return changed
    },

    csrfToken: (sessionId: string): string => signer.csrfToken(sessionId),
    isCsrfToken: (sessionId: string, given: string): boolean => signer.isCsrfToken(sessionId, given),

    /** Removes the rows of sessions whose every token has expired. How many. */
    sweep: (): Promise<number> => repo.deleteEnded(db, signer.accessTtlS),
  }
}

function unauthorized(message: string, reason: string): ThreadbaseError {
  return new ThreadbaseError('unauthorized', message, { reason })
}
