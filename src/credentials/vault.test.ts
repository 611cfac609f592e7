import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createFernet } from '../core/fernet.ts'
import { type KeyRing, readRing } from '../core/key-ring.ts'
import { fixedKeys, newEncryptionKey } from './service.ts'
import { createVault, maskOf, openWith, unreadable } from './vault.ts'

const newRing = () => readRing([newEncryptionKey()]) as KeyRing

describe('a mask', () => {
  test.each([
    ['sk-proj-abcdefghijkl', 'sk-pro****ijkl'],
    ['0123456789abcdef', '012345****cdef'],
    ['0123456789abcde', '****'],
    ['x', '****'],
    // by characters, not by halves of them
    ['😀'.repeat(16), `${'😀'.repeat(6)}****${'😀'.repeat(4)}`],
    ['😀'.repeat(15), '****'],
  ])('of %j is %j', (secret, mask) => {
    expect(maskOf(secret)).toBe(mask)
  })

  test('never shows more than ten characters, and not all of them', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', minLength: 1, maxLength: 80 }), (secret) => {
        const shown = [...maskOf(secret)].length - 4
        expect(shown === 0 || (shown === 10 && [...secret].length >= 16)).toBe(true)
      }),
    )
  })
})

describe('a vault', () => {
  test('gives back every text, and names the key', async () => {
    const text = newEncryptionKey()
    const vault = createVault(fixedKeys([text]))
    const open = await vault.opener()
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'binary', minLength: 1 }), async (secret) => {
        const sealed = await vault.seal(secret)
        expect(sealed.keyId).toBe(readRing([text])?.[0].id)
        expect(open(sealed)).toEqual({ text: secret })
        // a row that names another key, or none, opens all the same
        for (const keyId of [null, 'feedfeedfeedfeed'])
          expect(open({ ...sealed, keyId })).toEqual({ text: secret })
      }),
    )
  })

  test('keeps a byte order mark', async () => {
    const vault = createVault(fixedKeys([newEncryptionKey()]))
    expect((await vault.opener())(await vault.seal('\ufeffx'))).toEqual({ text: '\ufeffx' })
  })

  test('says why it does not open', () => {
    const [ring, other] = [newRing(), newRing()]
    const keyId = ring[0].id
    const seal = (plain: Uint8Array) => createFernet(ring).encrypt(plain)
    const token = seal(Buffer.from('secret'))
    const changed = `${token.slice(0, 30)}${token[30] === 'A' ? 'B' : 'A'}${token.slice(31)}`
    const open = openWith(ring)
    expect(openWith([])({ token, keyId })).toEqual({ problem: 'missing key' })
    expect(openWith(other)({ token, keyId })).toEqual({ problem: 'missing key' })
    expect(openWith(other)({ token, keyId: null })).toEqual({ problem: 'missing key' })
    expect(open({ token: changed, keyId })).toEqual({ problem: 'changed' })
    for (const bad of ['', 'x', 'sk-plain', token.slice(4), `${token} `, `${token}\n`])
      expect(open({ token: bad, keyId })).toEqual({ problem: 'malformed' })
    expect(open({ token: seal(Buffer.alloc(0)), keyId })).toEqual({ problem: 'empty' })
    expect(open({ token: seal(randomBytes(1).fill(0xff)), keyId })).toEqual({ problem: 'not text' })
  })

  test('an error names the key of the row, and nothing that is in it', () => {
    for (const problem of ['missing key', 'changed', 'malformed', 'empty', 'not text'] as const) {
      const error = unreadable('the API key for openai', { keyId: 'abcd' }, problem, { provider: 'openai' })
      expect(error).toMatchObject({
        code: 'unavailable',
        message: expect.stringMatching(/openai.*abcd/),
        details: { provider: 'openai', keyId: 'abcd', reason: problem },
      })
    }
    expect(unreadable('it', { keyId: null }, 'missing key', {}).message).toMatch(/ENCRYPTION_KEY.*names none/)
  })
})
