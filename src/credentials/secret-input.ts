import { ThreadbaseError } from '../core/errors.ts'
import { fitsHeader } from '../core/network.ts'
import { MAX_SECRET_BYTES } from './schema.ts'

/**
 * A secret as it will be stored; whatever is refused is not repeated.
 * @throws invalid_input for one that UTF-8 cannot hold, or that is too long in it
 */
export function requireSecret(secret: string, what: string): string {
  if (!secret.isWellFormed()) throw refused(`${what} must not hold half of a surrogate pair`)
  if (Buffer.byteLength(secret) > MAX_SECRET_BYTES)
    throw refused(`${what} must not be longer than ${MAX_SECRET_BYTES} bytes`)
  return secret
}

/** As {@link requireSecret}, for a key that is sent in a header. A line break at its end was not meant. */
export function requireKey(key: string): string {
  if (key.trim() !== key)
    throw refused(
      'the API key must not begin or end with white space or a line break: it would be stored as it is',
    )
  const secret = requireSecret(key, 'the API key')
  if (!fitsHeader(secret))
    throw refused(
      'the API key must be of ASCII characters, without line breaks and other control characters: it is sent in a header',
    )
  return secret
}

/** @throws invalid_input for a name that looks like another */
export function requireName(name: string): string {
  if (name.trim() === name) return name
  throw refused('the name must not begin or end with white space')
}

const refused = (message: string) => new ThreadbaseError('invalid_input', message)
