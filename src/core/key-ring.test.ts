import { randomBytes } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { readKey, writeKey } from './key-ring.ts'

describe('a key', () => {
  test('is read from base64url, as Fernet has it, and from base64, and is the same', () => {
    const bytes = randomBytes(32)
    const forms = [writeKey(bytes), bytes.toString('base64url'), bytes.toString('base64')]
    expect(writeKey(bytes)).toHaveLength(44)
    for (const form of forms) expect(readKey(form)).toEqual(readKey(forms[0] as string))
    expect(readKey(forms[0] as string)?.bytes).toEqual(bytes)
    expect(readKey(writeKey(randomBytes(32)))?.id).not.toBe(readKey(forms[0] as string)?.id)
  })

  test('that is too short, too long or not base64 is none', () => {
    const good = writeKey(randomBytes(32))
    for (const text of [
      '',
      'short',
      `${good}=`,
      `x${good}`,
      good.slice(2),
      `${good.slice(0, -2)}!=`,
      `${good}\n`,
    ]) {
      expect(readKey(text)).toBeUndefined()
    }
  })
})
