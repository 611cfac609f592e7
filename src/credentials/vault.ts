import { TextDecoder } from 'node:util'
import { ThreadbaseError } from '../core/errors.ts'
import { createFernet, FernetError } from '../core/fernet.ts'
import { isRing, type Key, type KeySource } from '../core/key-ring.ts'

/** A secret as a row holds it. The id of the key is null where another application wrote the row. */
export type Sealed = { token: string; keyId: string | null }

/** Why a row does not give its secret. */
export type Problem = 'missing key' | 'changed' | 'malformed' | 'empty' | 'not text'

export type Opened = { text: string } | { problem: Problem }

/** What encrypts secrets and opens them. */
export type Vault = {
  /** @throws unavailable without a key */
  seal(text: string): Promise<{ token: string; keyId: string }>
  /** What opens rows with the keys that there are, of which there may be none. @throws unavailable */
  opener(): Promise<(sealed: Sealed) => Opened>
}

export function createVault(keys: KeySource): Vault {
  return {
    async seal(text) {
      const ring = await keys.get()
      return { token: createFernet(ring).encrypt(Buffer.from(text)), keyId: ring[0].id }
    },
    async opener() {
      return openWith(await keys.find())
    },
  }
}

/** Opens with any of the keys, whichever the row names: the name may be missing. */
export function openWith(keys: readonly Key[]): (sealed: Sealed) => Opened {
  const fernet = isRing(keys) ? createFernet(keys) : undefined
  return ({ token, keyId }) => {
    if (fernet === undefined) return { problem: 'missing key' }
    try {
      return readText(fernet.decrypt(token).plain)
    } catch (error) {
      if (!(error instanceof FernetError)) throw error
      if (error.reason === 'malformed') return { problem: 'malformed' }
      return { problem: keys.some(({ id }) => id === keyId) ? 'changed' : 'missing key' }
    }
  }
}

function readText(bytes: Buffer): Opened {
  if (bytes.length === 0) return { problem: 'empty' }
  try {
    return { text: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes) }
  } catch {
    return { problem: 'not text' }
  }
}

/**
 * The error for a row that does not give its secret.
 * @param what the secret's name, for the message
 */
export function unreadable(
  what: string,
  { keyId }: Pick<Sealed, 'keyId'>,
  problem: Problem,
  details: Record<string, string>,
): ThreadbaseError {
  return new ThreadbaseError('unavailable', `${what} ${explain(problem, keyId)}`, {
    ...details,
    keyId,
    reason: problem,
  })
}

function explain(problem: Problem, keyId: string | null): string {
  switch (problem) {
    case 'missing key':
      return keyId === null
        ? 'is encrypted with a key that is not among the encryption keys (ENCRYPTION_KEY); its row names none'
        : `is encrypted with key ${keyId}, which is not among the encryption keys (ENCRYPTION_KEY)`
    case 'changed':
      return `does not open with key ${keyId}, which its row names: the row was changed`
    case 'malformed':
      return `cannot be read: what its row holds is no Fernet token (key ${keyId ?? 'unknown'})`
    case 'empty':
      return `is empty in its row (key ${keyId ?? 'unknown'}): store it again or delete it`
    case 'not text':
      return `cannot be read: what its row holds is not UTF-8 (key ${keyId ?? 'unknown'})`
  }
}

const SHOWN_FIRST = 6
const SHOWN_LAST = 4
const LEAST_SHOWN = 16
const HIDDEN = '****'

/** The first 6 and the last 4 characters; nothing of a secret that has fewer than `leastShown`. */
export function maskOf(secret: string, leastShown = LEAST_SHOWN): string {
  // by code points, so that no half of one is shown
  const characters = [...secret]
  if (characters.length < leastShown) return HIDDEN
  return characters.slice(0, SHOWN_FIRST).join('') + HIDDEN + characters.slice(-SHOWN_LAST).join('')
}
