import { isIP } from 'node:net'

/** Whose word on a caller's address and protocol (`X-Forwarded-…`) is taken: nobody's, that of so many proxies, or of these. */
export type TrustProxy = false | { hops: number } | { addresses: string[] }

const MAX_HOPS = 10
const NAMED_RANGES = ['loopback', 'linklocal', 'uniquelocal']

const splitList = (text: string): string[] => text.split(',').map((item) => item.trim())

/** The origins of a comma-separated list, as browsers send them; none for an empty text. Check it with {@link checkOrigins} first. */
export function readOrigins(text: string): string[] {
  if (text === '') return []
  return [...new Set(splitList(text).map((origin) => new URL(origin).origin))]
}

/** What is wrong with a list of origins; undefined when nothing is. */
export function checkOrigins(text: string): string | undefined {
  for (const item of splitList(text)) {
    if (item === '*') return 'must list origins: * would let every page use what a signed-in browser may'
    if (item === 'null') return 'must list origins: null is the origin of any sandboxed page'
    if (!isOrigin(item))
      return `must list origins such as https://app.example.com, without a path: ${JSON.stringify(item)} is none`
  }
  return undefined
}

function isOrigin(text: string): boolean {
  if (!/^https?:\/\/[^/?#@*\\\s]+$/i.test(text) || !URL.canParse(text)) return false
  const { pathname, search, hash, username, password } = new URL(text)
  return pathname === '/' && search === '' && hash === '' && username === '' && password === ''
}

/** The proxies of a hop count, or of a list of addresses. Check it with {@link checkTrustProxy} first. */
export function readTrustProxy(text: string | undefined): TrustProxy {
  if (text === undefined) return false
  return /^\d+$/.test(text) ? { hops: Number(text) } : { addresses: splitList(text) }
}

/** What is wrong with a hop count or list of addresses; undefined when nothing is. */
export function checkTrustProxy(text: string): string | undefined {
  if (/^\d+$/.test(text)) {
    const hops = Number(text)
    return hops >= 1 && hops <= MAX_HOPS ? undefined : `must count from 1 to ${MAX_HOPS} proxies`
  }
  const wrong = splitList(text).find((item) => !NAMED_RANGES.includes(item) && !isRange(item))
  if (wrong === undefined) return undefined
  return `must be a number of proxies, or addresses and networks (10.0.0.0/8, ::1, ${NAMED_RANGES.join(', ')}): ${JSON.stringify(wrong)} is none`
}

/** An address or a network; /0 is everybody, whose word is worth nothing. */
function isRange(text: string): boolean {
  const [address = '', bits, ...rest] = text.split('/')
  const version = isIP(address)
  if (version === 0 || rest.length > 0 || address.includes('%')) return false
  if (bits === undefined) return true
  return /^\d{1,3}$/.test(bits) && Number(bits) >= 1 && Number(bits) <= (version === 4 ? 32 : 128)
}

/** Whether a header can hold a key: characters of ASCII that are no control characters. What was copied from a page may have others. */
export const fitsHeader = (key: string): boolean => /^[ -~]*$/.test(key)

/** What is wrong with the URL of a service; undefined when nothing is. Never repeats it: it may hold a password. */
export function checkHttpUrl(value: string): string | undefined {
  return /^https?:\/\//.test(value) && URL.canParse(value) ? undefined : 'must be an http:// or https:// URL'
}

/** The same for where requests with a key go. Never repeats the value: it may hold a password. */
export function checkEndpointUrl(value: string): string | undefined {
  const problem = checkHttpUrl(value)
  if (problem !== undefined) return problem
  const { username, password, search, hash } = new URL(value)
  return username + password + search + hash === ''
    ? undefined
    : 'must be a URL without a user, a password and a query'
}

/** What is wrong with a list of `name=value` pairs; undefined when nothing is. */
export function checkPairs(value: string): string | undefined {
  try {
    readPairs(value)
    return undefined
  } catch {
    return 'must be name=value pairs, separated by commas, with URL-encoded values'
  }
}

/** Headers written as `name=value,name=value`. @throws when one is no pair */
export function readPairs(text: string | undefined): Record<string, string> {
  const pairs = (text ?? '').split(',').flatMap((pair) => {
    if (pair.trim() === '') return []
    const [, name, value] = /^\s*([\w!#$%&'*+.^`|~-]+)\s*=\s*(.*?)\s*$/.exec(pair) ?? []
    if (name === undefined || value === undefined) throw new Error('not a pair')
    return [[name, decodeURIComponent(value)] as const]
  })
  return Object.fromEntries(pairs)
}

/**
 * How many milliseconds a server wants to be left alone; undefined when it does not say. RFC 9110, section 10.2.3: seconds
 * or a date; some say milliseconds in a header of their own.
 */
export function readRetryAfter(headers: Headers): number | undefined {
  const ms = headers.get('retry-after-ms')
  if (ms !== null && /^\d+(\.\d+)?$/.test(ms)) return Number(ms)
  const value = headers.get('retry-after')
  if (value === null) return undefined
  if (/^\d+(\.\d+)?$/.test(value)) return Number(value) * 1_000
  const until = Date.parse(value)
  return Number.isNaN(until) ? undefined : Math.max(0, until - Date.now())
}
