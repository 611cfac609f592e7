import { randomBytes } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { createUrlSigner } from './signed-urls.ts'

const sha256 = 'ab'.repeat(32)
const options = {
  contentType: 'text/plain',
  contentDisposition: 'attachment; filename="a b.txt"',
  expiresInS: 60,
}

function parse(url: string): { path: string; query: Record<string, string> } {
  const { pathname, searchParams } = new URL(url, 'http://localhost')
  return { path: pathname.split('/').at(-1) ?? '', query: Object.fromEntries(searchParams) }
}

describe('signed URLs', () => {
  let time = Date.parse('2026-01-01T00:00:00Z')
  const signer = createUrlSigner(randomBytes(32), () => time)

  test('one allows just what was signed', () => {
    const { path, query } = parse(signer.signGet(sha256, options))
    expect(path).toBe(sha256)
    expect(signer.checkGet(path, query)).toEqual({
      contentType: 'text/plain',
      contentDisposition: options.contentDisposition,
    })
    const changes: [string, Record<string, string | undefined>][] = [
      ['cd'.repeat(32), query],
      ...Object.keys(query).map((name): [string, Record<string, string>] => [
        path,
        { ...query, [name]: 'x' },
      ]),
      ...Object.keys(query).map((name): [string, Record<string, string | undefined>] => [
        path,
        { ...query, [name]: undefined },
      ]),
      [path, { ...query, expires: String(Number(query.expires) + 1) }],
    ]
    for (const [at, changed] of changes)
      expect(() => signer.checkGet(at, changed)).toThrow('the signature of this URL is not valid')
  })

  test('one of another installation, or for another use, is refused', () => {
    const other = createUrlSigner(randomBytes(32), () => time)
    const { path, query } = parse(other.signGet(sha256, options))
    expect(() => signer.checkGet(path, query)).toThrow('not valid')
    const put = parse(signer.signPut({ sha256, size: 5, key: 'uploads/u', expiresInS: 60 }).url)
    expect(signer.checkPut('uploads/u', put.query)).toEqual({ sha256, size: 5 })
    expect(() => signer.checkPut('uploads/v', put.query)).toThrow('not valid')
    expect(() => signer.checkGet(sha256, put.query)).toThrow('not valid')
  })

  test('it ends', () => {
    const { path, query } = parse(signer.signGet(sha256, options))
    time += 59_000
    signer.checkGet(path, query)
    time += 1_000
    expect(() => signer.checkGet(path, query)).toThrow('expired')
  })
})
