import { errors, type JWTPayload, jwtVerify } from 'jose'
import { ThreadbaseError } from '../core/errors.ts'
import { userOf } from '../core/scope.ts'
import { createKeySet, type KeySet, withoutKeys } from './jwks.ts'
import { toUnauthorized } from './tokens.ts'

export type ExternalSettings = {
  jwksUrl: string
  issuer: string
  /** One of these must be in `aud`. Undefined: it is not looked at. */
  audience: readonly string[] | undefined
  algorithms: readonly string[]
  clockSkewS: number
}

/** A user as an external provider describes them. */
export type ExternalUser = { userId: string; email: string | null; name: string | null; expiresAtMs: number }

export type ExternalVerifier = (token: string) => Promise<ExternalUser>

/**
 * Checks tokens of an external provider against the keys of its JWKS URL.
 * The verifier fails with unauthorized for a token that is not good, and unavailable when the keys cannot be fetched.
 */
export function createExternalVerifier(settings: ExternalSettings): ExternalVerifier {
  const keys = createKeySet(settings.jwksUrl)
  return async (token) => {
    try {
      const { payload } = await jwtVerify(token, keys.find, {
        algorithms: [...settings.algorithms],
        issuer: settings.issuer,
        audience: settings.audience === undefined ? undefined : [...settings.audience],
        clockTolerance: settings.clockSkewS,
        requiredClaims: ['sub', 'exp'],
      })
      return toUser(payload, settings.clockSkewS)
    } catch (error) {
      throw toKnown(error, keys)
    }
  }
}

function toUser({ sub = '', exp = 0, ...claims }: JWTPayload, skewS: number): ExternalUser {
  const text = (value: unknown, limit: number) =>
    typeof value === 'string' && value.length <= limit && value.isWellFormed() && !value.includes('\0')
      ? value
      : null
  return {
    userId: requireSubject(sub),
    // an address that the provider has not seen proven could be anybody's
    email: claims.email_verified === true ? text(claims.email, 255) : null,
    name: text(claims.name, 255),
    expiresAtMs: (exp + skewS) * 1_000,
  }
}

function requireSubject(sub: string): string {
  try {
    return userOf({ userId: sub })
  } catch (cause) {
    throw new ThreadbaseError('unauthorized', 'the token names no user', { reason: 'invalid' }, { cause })
  }
}

function toKnown(error: unknown, keys: KeySet): unknown {
  if (error instanceof ThreadbaseError) return error
  // not of jose: a key of the set is damaged, too short, or of a kind that this Node does not know
  if (!(error instanceof errors.JOSEError)) return withoutKeys(error)
  if (error instanceof errors.JWKSNoMatchingKey && keys.mayBeOutdated()) return withoutKeys(error)
  return toUnauthorized(error)
}
