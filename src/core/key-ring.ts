import { hash } from 'node:crypto'

/** A key of a ring. Rows name it by its id, which tells nothing of the key. */
export type Key = { id: string; bytes: Buffer }

/** The first encrypts, all decrypt. */
export type KeyRing = readonly [Key, ...Key[]]

/** Where a ring comes from. It is asked when something is encrypted or decrypted, not before. */
export type KeySource = {
  /**
   * What may decrypt; none where no key was ever needed. It makes none.
   * @throws unavailable where a key must be configured and is not
   */
  find(): Promise<readonly Key[]>
  /** To encrypt; where none is configured, and one may be made, the first call makes it. @throws unavailable as find */
  get(): Promise<KeyRing>
}

const KEY_BYTES = 32
// the form of Fernet's keys, with or without the padding, and plain base64 of as many bytes
const KEY = /^[\w+/-]{43}=?$/

/** What a text that is no key should have been. */
export const KEY_FORM = `${KEY_BYTES} bytes in base64 or base64url`

/** Undefined when the text is no key. */
export function readKey(text: string): Key | undefined {
  if (!KEY.test(text)) return undefined
  const bytes = Buffer.from(text, 'base64url')
  return { id: hash('sha256', bytes, 'hex').slice(0, 16), bytes }
}

/** Undefined when there is none, or when one of them is no key. */
export function readRing(texts: readonly string[]): KeyRing | undefined {
  const keys = texts.flatMap((text) => readKey(text) ?? [])
  return isRing(keys) && keys.length === texts.length ? keys : undefined
}

export const isRing = (keys: readonly Key[]): keys is KeyRing => keys.length > 0

/** A key as text, padded as Python's Fernet wants it. */
export const writeKey = (bytes: Uint8Array): string => `${Buffer.from(bytes).toString('base64url')}=`
