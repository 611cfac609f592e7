import { createRemoteJWKSet, customFetch, errors, type JWTPayload, jwtVerify } from 'jose'
import { ThreadbaseError } from '../core/errors.ts'
import { userOf } from '../core/scope.ts'
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

// after a key was not found, the set is not fetched again for this long: a flood of tokens with invented key ids must
// not become a flood of fetches
const COOLDOWN_MS = 30_000
const FETCH_TIMEOUT_MS = 5_000
const KEYS_AGE_MS = 10 * 60_000

/**
 * Checks tokens of an external provider against the keys of its JWKS URL, which are fetched when the first token comes
 * and again when a token names a key that is not among them.
 * The verifier fails with unauthorized for a token that is not good, and unavailable when the keys cannot be fetched.
 */
export function createExternalVerifier(settings: ExternalSettings): ExternalVerifier {
  const keys = createRemoteJWKSet(new URL(settings.jwksUrl), {
    cooldownDuration: COOLDOWN_MS,
    timeoutDuration: FETCH_TIMEOUT_MS,
    cacheMaxAge: KEYS_AGE_MS,
    [customFetch]: fetchKeys,
  })
  return async (token) => {
    try {
      const { payload } = await jwtVerify(token, keys, {
        algorithms: [...settings.algorithms],
        issuer: settings.issuer,
        audience: settings.audience === undefined ? undefined : [...settings.audience],
        clockTolerance: settings.clockSkewS,
        requiredClaims: ['sub', 'exp'],
      })
      return toUser(payload, settings.clockSkewS)
    } catch (error) {
      throw toKnown(error)
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

async function fetchKeys(...args: Parameters<typeof fetch>): Promise<Response> {
  try {
    const response = await fetch(...args)
    if (response.status === 200) return response
    throw new Error(`the JWKS URL answered ${response.status}`)
  } catch (cause) {
    throw withoutKeys(cause)
  }
}

function toKnown(error: unknown): unknown {
  if (error instanceof ThreadbaseError) return error
  // the set itself is no good: the token may well be
  if (error instanceof errors.JWKSTimeout || error instanceof errors.JWKSInvalid) return withoutKeys(error)
  return toUnauthorized(error)
}

function withoutKeys(cause: unknown): ThreadbaseError {
  const message = "the identity provider's keys cannot be had at the moment"
  return new ThreadbaseError('unavailable', message, undefined, { cause })
}
