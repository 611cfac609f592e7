import { hash, randomBytes } from 'node:crypto'

const KEY = /^tb_[A-Za-z0-9_-]{43}$/
const SHOWN = 11

/** A new API key: `tb_` and 32 random bytes. */
export function newApiKey(): string {
  return `tb_${randomBytes(32).toString('base64url')}`
}

export function isApiKey(text: string): boolean {
  return KEY.test(text)
}

/** What lists show of a key. */
export function prefixOf(key: string): string {
  return key.slice(0, SHOWN)
}

/** What is stored of a key: its SHA-256. */
export function digestKey(key: string): Buffer {
  return hash('sha256', key, 'buffer')
}

/** Under which a credential is cached: nothing that could be used as one. */
export function fingerprint(credential: string): string {
  return hash('sha256', credential, 'hex')
}
