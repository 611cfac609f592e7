import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto'
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { ThreadbaseError } from '../core/errors.ts'
import { KEY_FORM, type Key, readKey } from '../core/key-ring.ts'
import { type Addresser, createAddresser } from './address.ts'

/** How a stored value is coded; see migrations/0005_checkpoints.sql. */
export const CODEC = { text: 0, bytes: 1, zstd: 2 } as const

export type Coded = { codec: number; keyId: string | null; data: Uint8Array }
/** As a row comes back: text where it is neither compressed nor encrypted. */
export type StoredCoded = { codec: number; keyId: string | null; text: string | null; data: Buffer | null }

/** Codes what one user's rows hold. `place` says which row it is: what is encrypted for one is not accepted in another. */
export type Codec = Addresser & {
  /** @param isText the bytes are UTF-8 without NUL */
  encode(data: Uint8Array, isText: boolean, place: string): Coded
  /** @throws unavailable for a key that is not in the ring; forbidden for plaintext where that is not allowed */
  decode(stored: StoredCoded, place: string): string | Uint8Array
  /** Whether it is encrypted as {@link encode} would now: not with a key that goes, and not left plain. */
  isCurrent(stored: Pick<StoredCoded, 'keyId'>): boolean
}

/** How values are encrypted. */
export type EncryptionOptions = {
  /** Keys of 32 bytes in base64 or base64url: the first encrypts, all decrypt. */
  keys: readonly string[]
  /** Reads rows that were stored before there was encryption. Default false: they are refused. */
  allowPlaintext?: boolean
}

// Of what `npm run bench -- compression` compares this writes as quickly as lz4 in the column, leaves two thirds of its
// bytes and is read in a fifth of the time. Below 4 KB a frame costs more time than its bytes: 20 µs each way.
const COMPRESS_FROM_BYTES = 4_096
const COMPRESSION = { params: { [constants.ZSTD_c_compressionLevel]: 1 } }
const WORTH_IT = 7 / 8
const IV_BYTES = 12
const TAG_BYTES = 16
const KEY_BYTES = 32
const MAX_USERS = 1_000

/**
 * Makes the codec of a user.
 * @throws invalid_input for a key that is not 32 bytes
 */
export function createCodecs(encryption?: EncryptionOptions): (userId: string) => Codec {
  if (encryption === undefined) {
    const plain = plainCodec()
    return () => plain
  }
  const ring = encryption.keys.map(requireKey)
  if (ring.length === 0)
    throw new ThreadbaseError('invalid_input', 'encryption needs a key', { field: 'encryption.keys' })
  const codecs = new Map<string, Codec>()
  return (userId) => {
    let codec = codecs.get(userId)
    if (codec === undefined) {
      if (codecs.size >= MAX_USERS) codecs.clear()
      codec = encryptedCodec(ring, userId, encryption.allowPlaintext ?? false)
      codecs.set(userId, codec)
    }
    return codec
  }
}

function requireKey(text: string, i: number): Key {
  const key = readKey(text)
  if (key !== undefined) return key
  const message = `encryption key ${i + 1} must be ${KEY_FORM}`
  throw new ThreadbaseError('invalid_input', message, { field: 'encryption.keys' })
}

const derive = ({ bytes }: Key, userId: string, use: string) =>
  Buffer.from(hkdfSync('sha256', bytes, '', `threadbase checkpoints ${use}\0${userId}`, KEY_BYTES))

function plainCodec(): Codec {
  return {
    ...createAddresser(),
    encode: (data, isText) => ({ ...compress(data, isText), keyId: null }),
    decode: ({ codec, keyId, text, data }) => {
      if (keyId !== null) throw unknownKey(keyId)
      return text ?? expand(codec, data as Buffer)
    },
    isCurrent: ({ keyId }) => keyId === null,
  }
}

function encryptedCodec(ring: Key[], userId: string, allowPlaintext: boolean): Codec {
  const keys = new Map(ring.map((key) => [key.id, derive(key, userId, 'values')]))
  const [first] = ring as [Key]
  const firstKey = keys.get(first.id) as Buffer
  return {
    ...createAddresser({ key: derive(first, userId, 'addresses'), userId }),
    encode: (data, isText, place) => {
      const { codec, data: body } = compress(data, isText)
      return { codec, keyId: first.id, data: encrypt(firstKey, body, place) }
    },
    decode: ({ codec, keyId, text, data }, place) => {
      if (keyId === null) {
        if (!allowPlaintext) throw plaintextRefused()
        return text ?? expand(codec, data as Buffer)
      }
      const key = keys.get(keyId)
      if (key === undefined) throw unknownKey(keyId)
      return expand(codec, decrypt(key, data as Buffer, place))
    },
    isCurrent: ({ keyId }) => keyId === first.id,
  }
}

/**
 * Encrypts stored data with the first key of a ring; how it is coded, and where it is, stays.
 * @throws unavailable for a key that is not in the ring, and for data that does not decrypt
 */
export type Reencrypt = (userId: string, keyId: string, data: Buffer, place: string) => Buffer

export function createReencrypt(ring: readonly Key[]): Reencrypt {
  // rows come user by user
  let known = { userId: '', keys: new Map<string, Buffer>() }
  return (userId, keyId, data, place) => {
    if (known.userId !== userId)
      known = { userId, keys: new Map(ring.map((key) => [key.id, derive(key, userId, 'values')])) }
    const [key, first] = [known.keys.get(keyId), known.keys.get(ring[0]?.id ?? '')]
    if (key === undefined || first === undefined) throw unknownKey(keyId)
    return encrypt(first, decrypt(key, data, place), place)
  }
}

function compress(data: Uint8Array, isText: boolean): { codec: number; data: Uint8Array } {
  if (data.length >= COMPRESS_FROM_BYTES) {
    const smaller = zstdCompressSync(data, COMPRESSION)
    if (smaller.length < data.length * WORTH_IT) return { codec: CODEC.zstd, data: smaller }
  }
  return { codec: isText ? CODEC.text : CODEC.bytes, data }
}

function expand(codec: number, data: Buffer): Uint8Array {
  if (codec === CODEC.zstd) return zstdDecompressSync(data)
  if (codec === CODEC.text || codec === CODEC.bytes) return data
  const message = `a stored checkpoint value has codec ${codec}, which this version does not know`
  throw new ThreadbaseError('unavailable', message, { codec })
}

function encrypt(key: Buffer, body: Uint8Array, place: string): Buffer {
  const iv = randomBytes(IV_BYTES)
  const cipher = createCipheriv('aes-256-gcm', key, iv).setAAD(Buffer.from(place))
  return Buffer.concat([iv, cipher.update(body), cipher.final(), cipher.getAuthTag()])
}

function decrypt(key: Buffer, data: Buffer, place: string): Buffer {
  const iv = data.subarray(0, IV_BYTES)
  const body = data.subarray(IV_BYTES, -TAG_BYTES)
  try {
    const decipher = createDecipheriv('aes-256-gcm', key, iv, { authTagLength: TAG_BYTES }).setAAD(
      Buffer.from(place),
    )
    decipher.setAuthTag(data.subarray(-TAG_BYTES))
    return Buffer.concat([decipher.update(body), decipher.final()])
  } catch (cause) {
    throw new ThreadbaseError(
      'unavailable',
      'a stored checkpoint value does not decrypt: it was changed or moved',
      undefined,
      {
        cause,
      },
    )
  }
}

function unknownKey(keyId: string): ThreadbaseError {
  const message = `a stored checkpoint value is encrypted with key ${keyId}, which is not among the encryption keys (ENCRYPTION_KEY)`
  return new ThreadbaseError('unavailable', message, { keyId })
}

function plaintextRefused(): ThreadbaseError {
  const message =
    'a stored checkpoint value is not encrypted; encryption.allowPlaintext (CHECKPOINT_ALLOW_PLAINTEXT) lets such values be read'
  return new ThreadbaseError('forbidden', message, { field: 'encryption.allowPlaintext' })
}
