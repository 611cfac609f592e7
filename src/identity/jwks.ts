import { createRemoteJWKSet, customFetch, type JWTVerifyGetKey } from 'jose'
import { ThreadbaseError } from '../core/errors.ts'

export type KeySet = {
  /** @throws unavailable when the keys cannot be fetched */
  find: JWTVerifyGetKey
  /** True when the last attempt to fetch the keys failed: there may be newer ones. */
  mayBeOutdated(): boolean
}

// after a fetch, an unknown key does not cause another for this long: a flood of tokens with invented key ids must not
// become a flood of fetches
const COOLDOWN_MS = 30_000
// after one that failed, nothing does
const RETRY_MS = 5_000
const FETCH_TIMEOUT_MS = 5_000
const KEYS_AGE_MS = 10 * 60_000
/** How long keys go on counting while newer ones cannot be had: an outage of the provider's is not at once one of ours. */
const BRIDGED_MS = 60 * 60_000
const MAX_BYTES = 1_000_000

/**
 * The keys behind a JWKS URL, fetched when the first is asked for, when they are ten minutes old, and when one is asked
 * for that is not among them.
 */
export function createKeySet(url: string): KeySet {
  let last: { text: string; at: number } | undefined
  let failure: { error: ThreadbaseError; at: number } | undefined

  const read = async (args: Parameters<typeof fetch>): Promise<string> => {
    if (failure !== undefined && Date.now() < failure.at + RETRY_MS) throw failure.error
    try {
      const text = await fetchKeys(...args)
      last = { text, at: Date.now() }
      failure = undefined
      return text
    } catch (cause) {
      failure = { error: withoutKeys(cause), at: Date.now() }
      throw failure.error
    }
  }
  const readOrBridge = async (...args: Parameters<typeof fetch>): Promise<Response> => {
    try {
      return new Response(await read(args))
    } catch (error) {
      if (last !== undefined && Date.now() < last.at + BRIDGED_MS) return new Response(last.text)
      throw error
    }
  }
  const find = createRemoteJWKSet(new URL(url), {
    cooldownDuration: COOLDOWN_MS,
    timeoutDuration: FETCH_TIMEOUT_MS,
    cacheMaxAge: KEYS_AGE_MS,
    [customFetch]: readOrBridge,
  })
  return { find, mayBeOutdated: () => failure !== undefined }
}

export function withoutKeys(cause: unknown): ThreadbaseError {
  const message = "the identity provider's keys cannot be had at the moment"
  return new ThreadbaseError('unavailable', message, undefined, { cause })
}

async function fetchKeys(...args: Parameters<typeof fetch>): Promise<string> {
  const response = await fetch(...args)
  if (response.status !== 200) {
    await response.body?.cancel()
    throw new Error(`the JWKS URL answered ${response.status}`)
  }
  const text = await readText(response)
  const { keys } = (JSON.parse(text) ?? {}) as { keys?: unknown }
  if (Array.isArray(keys) && keys.every((key) => typeof key === 'object' && key !== null)) return text
  throw new Error('what the JWKS URL answered is no set of keys')
}

async function readText({ body }: Response): Promise<string> {
  const parts: Uint8Array[] = []
  let bytes = 0
  for await (const part of body ?? []) {
    bytes += part.byteLength
    if (bytes > MAX_BYTES) throw new Error(`the JWKS URL answered with more than ${MAX_BYTES} bytes`)
    parts.push(part)
  }
  return Buffer.concat(parts).toString('utf8')
}
