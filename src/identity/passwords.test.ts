import { hash } from '@node-rs/bcrypt'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createPasswords } from './passwords.ts'

const passwords = createPasswords(4)

describe('passwords', () => {
  test.each([
    ['ASCII', 'a'.repeat(72)],
    ['two bytes a character', 'é'.repeat(36)],
    ['far beyond what bcrypt reads', 'x'.repeat(1_000)],
  ])('beyond 72 bytes every byte counts (%s)', async (_, start) => {
    const stored = await passwords.hash(`${start}1`)
    expect(await passwords.verify(`${start}1`, stored)).toBe(true)
    for (const other of [`${start}2`, start, `${start}11`])
      expect(await passwords.verify(other, stored)).toBe(false)
  })

  test('a NUL ends nothing', async () => {
    const stored = await passwords.hash('before\0after')
    expect(await passwords.verify('before\0after', stored)).toBe(true)
    for (const other of ['before', 'before\0', 'before\0other', 'beforeafter', '\0before\0after'])
      expect(await passwords.verify(other, stored), JSON.stringify(other)).toBe(false)
    expect(await passwords.verify('\0', await passwords.hash('\0\0'))).toBe(false)
  })

  test('forms of the same characters are one password, other characters are another', async () => {
    const stored = await passwords.hash('pâté ﬁne Å')
    expect(await passwords.verify('pâté ﬁne Å'.normalize('NFD'), stored)).toBe(true)
    expect(await passwords.verify('pâté fine \u212b', stored)).toBe(true)
    for (const other of ['pate fine A', 'PÂTÉ FINE Å', 'pâté fine Å '])
      expect(await passwords.verify(other, stored), other).toBe(false)
  })

  test('a password does not sign in with the digest that stands for a long one', async () => {
    const long = 'l'.repeat(100)
    const stored = await passwords.hash(long)
    expect(await passwords.verify(stored, stored)).toBe(false)
    expect(await passwords.verify(long.slice(0, 72), stored)).toBe(false)
  })

  test.each(['2a', '2b', '2y'] as const)(
    'hashes that others made with bcrypt ($%s$) verify',
    async (version) => {
      const made = await hash('horse battery', { cost: 5 })
      const stored = made.replace(/^\$2[a-z]\$/, `$${version}$`)
      expect(await passwords.verify('horse battery', stored)).toBe(true)
      expect(await passwords.verify('horse batterz', stored)).toBe(false)
      expect(passwords.isOutdated(stored)).toBe(true)
      expect(createPasswords(5).isOutdated(stored)).toBe(false)
    },
  )

  // of OpenBSD's and jBCrypt's test suites
  test.each([
    ['U*U', '$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW'],
    ['abc', '$2a$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i'],
  ])('the known hash of %j verifies', async (password, stored) => {
    expect(await passwords.verify(password, stored)).toBe(true)
    expect(await passwords.verify(`${password} `, stored)).toBe(false)
  })

  test('without a hash nothing verifies, not even what the decoy was made of', async () => {
    await passwords.warmUp()
    for (const password of ['', 'nobody has this password', 'anything'])
      expect(await passwords.verify(password, null)).toBe(false)
  })

  test.each([
    '',
    'x',
    'plain text',
    '$2b$05$short',
    '$2b$99$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW',
    '$argon2id$v=19$m=65536$abc$def',
  ])('what is no bcrypt hash (%s) verifies nothing', async (stored) => {
    for (const password of ['', 'x', stored]) expect(await passwords.verify(password, stored)).toBe(false)
    expect(passwords.isOutdated(stored)).toBe(true)
  })

  test('a new hash is bcrypt of the cost that was asked for, with a salt of its own', async () => {
    const [one, two] = await Promise.all([passwords.hash('same'), passwords.hash('same')])
    expect(one).toMatch(/^\$2b\$04\$[./A-Za-z0-9]{53}$/)
    expect(one).not.toBe(two)
    expect(passwords.isOutdated(one)).toBe(false)
    expect(createPasswords(5).isOutdated(one)).toBe(true)
  })

  test('any text is a password of its own', async () => {
    const text = fc.string({ unit: 'binary', maxLength: 100 })
    await fc.assert(
      fc.asyncProperty(text, text, async (a, b) => {
        const stored = await passwords.hash(a)
        expect(await passwords.verify(a, stored)).toBe(true)
        expect(await passwords.verify(b, stored)).toBe(a.normalize('NFKC') === b.normalize('NFKC'))
      }),
      { numRuns: 20 },
    )
  })
})
