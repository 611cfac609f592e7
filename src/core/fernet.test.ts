import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { hasPython, python } from '../../test/python.ts'
import { createFernet, FernetError, seal } from './fernet.ts'
import { type Key, readKey, writeKey } from './key-ring.ts'

const keyOf = (text: string) => readKey(text) as Key
const newKey = () => writeKey(randomBytes(32))
// the specification's
const SECRET = 'cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4='
const TOKEN =
  'gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA=='
const at = (time: string) => Date.parse(time) / 1_000

const INVALID: [why: string, reason: FernetError['reason'], token: string, now?: string][] = [
  [
    'a wrong mac',
    'no key opens it',
    'gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPAl1-szkFVzXTuGb4hR8AKtwcaX1YdykQUFBQUFBQUFBQQ==',
  ],
  ['too short', 'malformed', 'gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPA=='],
  [
    'no base64',
    'malformed',
    '%%%%%%%%%%%%%AECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPAl1-szkFVzXTuGb4hR8AKtwcaX1YdykRtfsH-p1YsUD2Q==',
  ],
  [
    'not whole blocks',
    'malformed',
    'gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPOm73QeoCk9uGib28Xe5vz6oxq5nmxbx_v7mrfyudzUm',
  ],
  [
    'wrong padding',
    'malformed',
    'gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0ODz4LEpdELGQAad7aNEHbf-JkLPIpuiYRLQ3RtXatOYREu2FWke6CnJNYIbkuKNqOhw==',
  ],
  [
    'from the far future',
    'from the future',
    'gAAAAAAdwStRAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPAnja1xKYyhd-Y6mSkTOyTGJmw2Xc2a6kBd-iX9b_qXQcw==',
  ],
  [
    'older than it may be',
    'expired',
    'gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPAl1-szkFVzXTuGb4hR8AKtwcaX1YdykRtfsH-p1YsUD2Q==',
    '1985-10-26T01:21:31-07:00',
  ],
  [
    'a wrong initialisation vector',
    'malformed',
    'gAAAAAAdwJ6xBQECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPAkLhFLHpGtDBRLRTZeUfWgHSv49TF2AUEZ1TIvcZjK1zQ==',
  ],
]

describe('Fernet', () => {
  test('writes the token of the specification', () => {
    const iv = Uint8Array.from({ length: 16 }, (_, i) => i)
    expect(seal(keyOf(SECRET), Buffer.from('hello'), at('1985-10-26T01:20:00-07:00'), iv)).toBe(TOKEN)
  })

  test('reads it', () => {
    const options = { now: at('1985-10-26T01:20:01-07:00'), maxAgeS: 60 }
    const { plain, writtenAt } = createFernet([keyOf(SECRET)]).decrypt(TOKEN, options)
    expect([plain.toString(), writtenAt]).toEqual(['hello', at('1985-10-26T01:20:00-07:00')])
  })

  test.each(INVALID)('refuses %s', (_, reason, token, now = '1985-10-26T01:20:01-07:00') => {
    const fernet = createFernet([keyOf(SECRET)])
    const refusal = expect(() => fernet.decrypt(token, { now: at(now), maxAgeS: 60 }))
    refusal.toThrow(FernetError)
    refusal.toThrow(reason)
  })

  test('the first key of a ring encrypts, all decrypt, a stranger does not', () => {
    const [old, young, other] = [newKey(), newKey(), newKey()].map(keyOf) as [Key, Key, Key]
    const token = createFernet([old]).encrypt(Buffer.from('x'))
    const ring = createFernet([young, old])
    expect(ring.decrypt(token)).toMatchObject({ keyId: old.id })
    expect(ring.decrypt(ring.encrypt(Buffer.from('y')))).toMatchObject({ keyId: young.id })
    expect(() => createFernet([other]).decrypt(token)).toThrow('no key opens it')
  })

  test('any bytes come back, and a token with any character changed does not open', () => {
    const fernet = createFernet([keyOf(newKey())])
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(), fc.nat(62), (bytes, where, what) => {
        const token = fernet.encrypt(bytes)
        expect(fernet.decrypt(token).plain).toEqual(Buffer.from(bytes))
        // the last character before the padding holds bits that mean nothing
        const i = where % (token.replace(/=+$/, '').length - 1)
        const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'.replace(
          token[i] ?? '',
          '',
        )
        const changed = `${token.slice(0, i)}${letters[what]}${token.slice(i + 1)}`
        expect(() => fernet.decrypt(changed)).toThrow(FernetError)
      }),
    )
  })
})

describe.skipIf(!hasPython)('Fernet and Python’s cryptography', () => {
  const texts = ['', 'sk-proj-abc', 'grün \u{1f600}', 'x'.repeat(10_000)]

  test.each(texts)('each reads what the other wrote, %#', (text) => {
    const key = python('print(Fernet.generate_key().decode())')
    const fernet = createFernet([keyOf(key)])
    const theirs = python('print(Fernet(sys.argv[1]).encrypt(sys.argv[2].encode()).decode())', key, text)
    expect(fernet.decrypt(theirs).plain.toString()).toBe(text)
    const ours = fernet.encrypt(Buffer.from(text))
    expect(
      python(
        'print(Fernet(sys.argv[1]).decrypt(sys.argv[2].encode()).hex())',
        writeKey(keyOf(key).bytes),
        ours,
      ),
    ).toBe(Buffer.from(text).toString('hex'))
  })
})
