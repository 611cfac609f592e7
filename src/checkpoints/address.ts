import { createHmac, hash as digest } from 'node:crypto'

/** The name of a value or node within a thread: 128 bits made from its content, written as a UUID. */
export type Address = string

/** How addresses are made: equal content, equal address. */
export type Addresser = {
  ofValue(type: string, data: Uint8Array): Address
  ofNode(parts: readonly Address[]): Address
}

const BYTES = 16

/**
 * SHA-256 of the content, cut to 128 bits. With a secret it is an HMAC, so that addresses tell who reads the database
 * nothing about what they name; the user's id is part of it, so that equal content of two users looks different.
 */
export function createAddresser(secret?: { key: Uint8Array; userId: string }): Addresser {
  const of = (kind: string, data: Uint8Array): Address => {
    const head = Buffer.from(secret === undefined ? kind : `${kind}\0${secret.userId}`)
    const content = Buffer.allocUnsafe(head.length + 1 + data.length)
    content.set(head)
    content[head.length] = 0
    content.set(data, head.length + 1)
    const hex =
      secret === undefined
        ? digest('sha256', content, 'hex')
        : createHmac('sha256', secret.key).update(content).digest('hex')
    return toAddress(hex.slice(0, 2 * BYTES))
  }
  return {
    ofValue: (type, data) => of(`value\0${type}`, data),
    ofNode: (parts) => of('node', Buffer.from(parts.join(''), 'latin1')),
  }
}

function toAddress(hex: string): Address {
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
}

/** The last eight bits, which decide where a list is cut. */
export function lowBits(address: Address): number {
  return 16 * hexDigit(address.charCodeAt(34)) + hexDigit(address.charCodeAt(35))
}

const hexDigit = (code: number) => (code < 58 ? code - 48 : code - 87)
