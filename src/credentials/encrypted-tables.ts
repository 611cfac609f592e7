import { createFernet, FernetError } from '../core/fernet.ts'
import { isRing, type Key } from '../core/key-ring.ts'
import type { EncryptedTable } from '../db/encrypted-rows.ts'

/** What credentials and variables are kept in. As Python's MultiFernet does it, a token keeps the time it was first written. */
export function encryptedSecretTables(ring: readonly Key[]): EncryptedTable[] {
  const fernet = isRing(ring) ? createFernet(ring) : undefined
  const reencrypt: EncryptedTable['reencrypt'] = ({ keyId, value }) => {
    if (fernet === undefined) return { problem: 'missing key' }
    try {
      const { plain, writtenAt } = fernet.decrypt(value as string)
      return { value: fernet.encrypt(plain, writtenAt) }
    } catch (error) {
      if (!(error instanceof FernetError)) throw error
      if (error.reason === 'malformed') return { problem: 'malformed' }
      return { problem: ring.some(({ id }) => id === keyId) ? 'changed' : 'missing key' }
    }
  }
  const common = { value: ['token', 'text'], opens: 'any', reencrypt } as const
  return [
    {
      name: 'user_api_keys',
      key: [
        ['user_id', 'text'],
        ['provider', 'text'],
      ],
      ...common,
    },
    {
      name: 'variables',
      key: [
        ['user_id', 'text'],
        ['id', 'uuid'],
      ],
      ...common,
    },
  ]
}
