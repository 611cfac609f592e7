import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { ThreadbaseError } from '../core/errors.ts'
import { KEY_FORM, type KeyRing, type KeySource, readRing, writeKey } from '../core/key-ring.ts'
import { readOrMakeSecret, readSecret } from '../identity/service.ts'

export type KeySettings = {
  /** ENCRYPTION_KEY. */
  encryptionKeys: readonly string[] | undefined
  /** Undefined: the embedded store. */
  databaseUrl: string | undefined
  dataDir: string
}

const FILE = 'encryption.key'

/** A new key, in the form of Fernet's. */
export const newEncryptionKey = (): string => writeKey(randomBytes(32))

/**
 * The keys of the configuration; without any, on the embedded store, those in a file beside it. Where a database is
 * used by several servers none is made: the others would not have it, and it is easily lost beside data that stays.
 */
export function createKeySource({ encryptionKeys, databaseUrl, dataDir }: KeySettings): KeySource {
  if (encryptionKeys !== undefined) return fixedKeys(encryptionKeys)
  if (databaseUrl !== undefined) return { find: refuse, get: refuse }
  return keysOfFile(join(dataDir, FILE))
}

/** @throws invalid_input for a text that is no key, which is not repeated */
export function fixedKeys(texts: readonly string[]): KeySource {
  const ring = readRing(texts)
  if (ring === undefined)
    throw new ThreadbaseError('invalid_input', `encryption keys must be one or more, each ${KEY_FORM}`)
  return { find: async () => ring, get: async () => ring }
}

async function refuse(): Promise<never> {
  throw new ThreadbaseError(
    'unavailable',
    'credentials need ENCRYPTION_KEY, which is not set: `threadbase keys generate` makes one; give the same to all servers',
    { variable: 'ENCRYPTION_KEY' },
  )
}

/** Several keys are separated by commas or stand on lines of their own. What was read stays: the file is ours alone. */
function keysOfFile(file: string): KeySource {
  let known: KeyRing | undefined
  const remember = (text: string): KeyRing => {
    const ring = readRing(text.split(/[\s,]+/).filter((part) => part !== ''))
    if (ring === undefined) {
      const message = `${file} must hold one or more keys, each ${KEY_FORM}: what it held opens what it encrypted, so bring it back`
      throw new ThreadbaseError('invalid_input', message, { file })
    }
    known = ring
    return ring
  }
  return {
    find: async () => {
      if (known !== undefined) return known
      const text = await readSecret(file)
      return text === undefined ? [] : remember(text)
    },
    get: async () => known ?? remember(await readOrMakeSecret(file, KEY_FILE)),
  }
}

// whether the file holds keys is said here, in other words than for a secret that may be replaced
const KEY_FILE = { create: newEncryptionKey, isSecret: () => true }
