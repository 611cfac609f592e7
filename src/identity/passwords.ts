import { createHmac } from 'node:crypto'
import { hash, verify } from '@node-rs/bcrypt'

export type Passwords = ReturnType<typeof createPasswords>

// what bcrypt reads of a password
const BCRYPT_BYTES = 72

/**
 * Hashes and checks passwords with bcrypt.
 * @param cost log2 of the rounds
 */
export function createPasswords(cost: number) {
  let decoy: Promise<string> | undefined
  const costOf = (stored: string) => Number(/^\$2[abxy]\$(\d\d)\$/.exec(stored)?.[1] ?? Number.NaN)
  return {
    hash: (password: string): Promise<string> => hash(prepare(password), { cost }),

    /**
     * Whether the password is the one of the hash. Without a hash it is false after the same work, so that an answer's
     * time does not tell whether there is such a user.
     */
    async verify(password: string, stored: string | null): Promise<boolean> {
      decoy ??= hash('nobody has this password', { cost })
      const matches = await verify(prepare(password), stored ?? (await decoy))
      return matches && stored !== null
    },

    /** True for a hash of another cost: the time to make it anew is when its password is known. */
    isOutdated: (stored: string): boolean => costOf(stored) !== cost,

    /** Makes the decoy ahead, so that not even the first sign-in takes longer. */
    async warmUp(): Promise<void> {
      decoy ??= hash('nobody has this password', { cost })
      await decoy
    },
  }
}

/**
 * What bcrypt gets: the password as it is, so that hashes made elsewhere go on working; a digest of one that bcrypt
 * would cut, at 72 bytes or at a NUL. Forms of the same characters (NFKC) are the same password.
 */
function prepare(password: string): string {
  const text = password.normalize('NFKC')
  if (Buffer.byteLength(text) <= BCRYPT_BYTES && !text.includes('\0')) return text
  return createHmac('sha384', 'threadbase long password').update(text).digest('base64')
}
