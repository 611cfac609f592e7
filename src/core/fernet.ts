import { createCipheriv, createDecipheriv, createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import type { Key, KeyRing } from './key-ring.ts'

/**
 * Fernet tokens (github.com/fernet/spec, version 0x80), as Python's `cryptography` writes and reads them: AES-128-CBC
 * with HMAC-SHA256 over the whole, in base64url.
 */
export type Fernet = {
  /** @param now seconds since 1970; default: the clock */
  encrypt(plain: Uint8Array, now?: number): string
  /** @throws FernetError */
  decrypt(token: string, options?: { maxAgeS?: number; now?: number }): Decrypted
}

/** What a token held, and which key opened it. */
export type Decrypted = { plain: Buffer; keyId: string; writtenAt: number }

/** A token that does not open. It says why, and nothing of what the token holds. */
export class FernetError extends Error {
  readonly reason: 'malformed' | 'no key opens it' | 'expired' | 'from the future'
  constructor(reason: FernetError['reason']) {
    super(`the Fernet token is not accepted: ${reason}`)
    this.reason = reason
  }
}

const VERSION = 0x80
const HEADER_BYTES = 9
const IV_BYTES = 16
const BLOCK_BYTES = 16
const MAC_BYTES = 32
const LEAST_BYTES = HEADER_BYTES + IV_BYTES + BLOCK_BYTES + MAC_BYTES
const MAX_SKEW_S = 60
const BASE64URL = /^[\w-]+={0,2}$/

/** The first key of the ring encrypts, any of them decrypts. */
export function createFernet(ring: KeyRing): Fernet {
  return {
    encrypt: (plain, now = Math.floor(Date.now() / 1_000)) =>
      seal(ring[0], plain, now, randomBytes(IV_BYTES)),
    decrypt: (token, { maxAgeS, now = Math.floor(Date.now() / 1_000) } = {}) => {
      const bytes = readToken(token)
      const signed = bytes.subarray(0, -MAC_BYTES)
      const mac = bytes.subarray(-MAC_BYTES)
      const key = ring.find(({ bytes: secret }) => timingSafeEqual(sign(secret, signed), mac))
      if (key === undefined) throw new FernetError('no key opens it')
      const writtenAt = Number(bytes.readBigUInt64BE(1))
      if (maxAgeS !== undefined) {
        if (writtenAt + maxAgeS < now) throw new FernetError('expired')
        if (writtenAt > now + MAX_SKEW_S) throw new FernetError('from the future')
      }
      return { plain: open(key, signed), keyId: key.id, writtenAt }
    },
  }
}

/** @internal With a time and an initialisation vector of the caller's, for the specification's vectors. */
export function seal({ bytes }: Key, plain: Uint8Array, now: number, iv: Uint8Array): string {
  const header = Buffer.alloc(HEADER_BYTES)
  header.writeUInt8(VERSION, 0)
  header.writeBigUInt64BE(BigInt(now), 1)
  const cipher = createCipheriv('aes-128-cbc', bytes.subarray(16), iv)
  const signed = Buffer.concat([header, iv, cipher.update(plain), cipher.final()])
  const token = Buffer.concat([signed, sign(bytes, signed)]).toString('base64url')
  // Python's base64 wants the padding
  return token.padEnd(Math.ceil(token.length / 4) * 4, '=')
}

function readToken(token: string): Buffer {
  const bytes = BASE64URL.test(token) ? Buffer.from(token, 'base64url') : Buffer.alloc(0)
  const isWhole = bytes.length >= LEAST_BYTES && (bytes.length - LEAST_BYTES) % BLOCK_BYTES === 0
  if (!isWhole || bytes[0] !== VERSION) throw new FernetError('malformed')
  return bytes
}

function open({ bytes }: Key, signed: Buffer): Buffer {
  const iv = signed.subarray(HEADER_BYTES, HEADER_BYTES + IV_BYTES)
  const decipher = createDecipheriv('aes-128-cbc', bytes.subarray(16), iv)
  try {
    return Buffer.concat([decipher.update(signed.subarray(HEADER_BYTES + IV_BYTES)), decipher.final()])
  } catch {
    throw new FernetError('malformed')
  }
}

const sign = (key: Buffer, signed: Uint8Array) =>
  createHmac('sha256', key.subarray(0, 16)).update(signed).digest()
