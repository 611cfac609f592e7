import { isThreadbaseError } from '../core/errors.ts'
import type { Key } from '../core/key-ring.ts'
import type { EncryptedRow, EncryptedTable } from '../db/encrypted-rows.ts'
import { createReencrypt } from './codec.ts'
import { blobPlace, recordPlace, writePlace } from './decode.ts'

const THREAD = [
  ['user_id', 'text'],
  ['thread_id', 'text'],
] as const
const CHECKPOINT = [...THREAD, ['checkpoint_ns', 'text'], ['checkpoint_id', 'text']] as const

/**
 * What CHECKPOINT_ENCRYPTION encrypted. A value can be encrypted anew where it is: its address was made with the key of
 * its time and is only a name from then on. Equal content that is stored later gets an address of the new key, and is
 * stored once more.
 */
export function encryptedCheckpointTables(ring: readonly Key[]): EncryptedTable[] {
  const reencrypt = createReencrypt(ring)
  const within =
    (placeOf: (key: string[]) => string): EncryptedTable['reencrypt'] =>
    ({ key, keyId, value }: EncryptedRow) => {
      try {
        return { value: reencrypt(key[0] as string, keyId as string, value as Buffer, placeOf(key)) }
      } catch (error) {
        if (!isThreadbaseError(error, 'unavailable')) throw error
        return { problem: 'changed' }
      }
    }
  return [
    {
      name: 'checkpoints',
      key: CHECKPOINT,
      value: ['record', 'bytea'],
      opens: 'named',
      reencrypt: within(([, , ns = '', id = '']) => recordPlace(ns, id)),
    },
    {
      name: 'checkpoint_blobs',
      key: [...THREAD, ['hash', 'uuid']],
      value: ['data', 'bytea'],
      opens: 'named',
      reencrypt: within(([, , hash = '']) => blobPlace(hash)),
    },
    {
      name: 'checkpoint_writes',
      key: [...CHECKPOINT, ['task_id', 'text'], ['idx', 'integer']],
      value: ['data', 'bytea'],
      opens: 'named',
      reencrypt: within(([, , ns = '', id = '', taskId = '', idx]) =>
        writePlace(ns, id, taskId, Number(idx)),
      ),
    },
  ]
}
