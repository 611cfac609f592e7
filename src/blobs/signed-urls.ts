import { createHmac, timingSafeEqual } from 'node:crypto'
import { ThreadbaseError } from '../core/errors.ts'
import type { BlobFacts, PresignGetOptions, Sha256, UrlQuery } from './blobs.ts'

/** Signs URLs that this server answers itself, and checks them. */
export type UrlSigner = {
  signGet(sha256: Sha256, options: PresignGetOptions): string
  signPut(put: BlobFacts & { key: string; expiresInS: number }): {
    url: string
    method: 'PUT'
    headers: Record<string, string>
  }
  /** What a signed URL allows. @throws forbidden when it is altered, foreign or expired */
  checkGet(sha256: string, query: UrlQuery): { contentType: string; contentDisposition: string }
  checkPut(key: string, query: UrlQuery): BlobFacts
}

const GET = '/api/blobs'
const PUT = '/api/blobs/uploads'

/** @param key 32 bytes that all servers share */
export function createUrlSigner(key: Uint8Array, now: () => number = Date.now): UrlSigner {
  const sign = (method: string, parts: (string | number)[]) =>
    // as JSON, so that no two lists of parts are one text
    createHmac('sha256', key)
      .update(JSON.stringify([method, ...parts]))
      .digest('base64url')
  const check = (method: string, parts: string[], { expires = '', signature = '' }: UrlQuery) => {
    const expected = Buffer.from(sign(method, [...parts, expires]))
    const given = Buffer.from(signature)
    const isOurs = given.length === expected.length && timingSafeEqual(given, expected)
    // a URL that is not ours tells nothing of the time
    if (!isOurs) throw new ThreadbaseError('forbidden', 'the signature of this URL is not valid')
    if (Number(expires) * 1_000 <= now()) throw new ThreadbaseError('forbidden', 'this URL has expired')
  }
  const expiry = (expiresInS: number) => String(Math.floor(now() / 1_000) + expiresInS)
  return {
    signGet(sha256, { contentType, contentDisposition, expiresInS }) {
      const expires = expiry(expiresInS)
      const signature = sign('GET', [sha256, contentType, contentDisposition, expires])
      const query = new URLSearchParams({
        type: contentType,
        disposition: contentDisposition,
        expires,
        signature,
      })
      return `${GET}/${sha256}?${query}`
    },
    signPut({ key: name, sha256, size, expiresInS }) {
      const expires = expiry(expiresInS)
      const signature = sign('PUT', [name, sha256, String(size), expires])
      const query = new URLSearchParams({ sha256, size: String(size), expires, signature })
      const headers = { 'content-length': String(size), 'content-type': 'application/octet-stream' }
      return { url: `${PUT}/${name.split('/').at(-1)}?${query}`, method: 'PUT', headers }
    },
    checkGet(sha256, query) {
      const { type = '', disposition = '' } = query
      check('GET', [sha256, type, disposition], query)
      return { contentType: type, contentDisposition: disposition }
    },
    checkPut(name, query) {
      const { sha256 = '', size = '' } = query
      check('PUT', [name, sha256, size], query)
      return { sha256, size: Number(size) }
    },
  }
}
