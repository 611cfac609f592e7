import { readRetryAfter } from '../core/network.ts'
import { DIMENSIONS } from './embedder.ts'
import type { EndpointOptions } from './endpoint.ts'

/**
 * Why there are no vectors, in our own words: what an endpoint says may repeat a key. `refused`: it wants no such request,
 * for the sake of a text or of a parameter. `length`: vectors that are too short or too long.
 */
export type Failure = {
  kind: 'refused' | 'length' | 'unavailable'
  reason: string
  status?: number
  retryAfterS?: number
  length?: number
}
export type Outcome = { vectors: Float32Array[] } | Failure

// bad request, too large, unprocessable
const REFUSALS = new Set([400, 413, 422])

/** One request. @throws the reason of `signal` once that is aborted */
export async function request(
  { model, url, key, timeoutMs }: EndpointOptions,
  input: readonly string[],
  withDimensions: boolean,
  signal: AbortSignal,
): Promise<Outcome> {
  const limit = AbortSignal.timeout(timeoutMs)
  try {
    const response = await fetch(`${url.replace(/\/+$/, '')}/embeddings`, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        ...(key === undefined ? {} : { authorization: `Bearer ${key}` }),
      },
      body: JSON.stringify({
        model,
        input,
        // a quarter of the bytes of decimal numbers
        encoding_format: 'base64',
        ...(withDimensions ? { dimensions: DIMENSIONS } : {}),
      }),
      redirect: 'manual',
      signal: AbortSignal.any([signal, limit]),
    })
    if (response.ok) return readVectors(await response.json(), input.length)
    await response.body?.cancel()
    return describeStatus(response)
  } catch (error) {
    signal.throwIfAborted()
    if (limit.aborted) return unavailable(`gave no answer within ${timeoutMs / 1_000} s`)
    if (error instanceof SyntaxError) return unavailable('answered with what is no JSON')
    return unavailable(`cannot be reached${codeOf(error)}`)
  }
}

const unavailable = (reason: string): Failure => ({ kind: 'unavailable', reason })

function describeStatus({ status, headers }: Response): Failure {
  const retryAfterMs = status === 429 || status >= 500 ? readRetryAfter(headers) : undefined
  const wait = retryAfterMs === undefined ? {} : { retryAfterS: Math.ceil(retryAfterMs / 1_000) }
  const kind = REFUSALS.has(status) ? 'refused' : 'unavailable'
  return { kind, reason: reasonOf(status), status, ...wait }
}

function reasonOf(status: number): string {
  if (REFUSALS.has(status)) return `refuses the request (${status})`
  if (status === 401 || status === 403) return `does not accept the key (${status}): see EMBEDDING_API_KEY`
  if (status === 404) return 'is not to be found (404): see EMBEDDING_MODEL and EMBEDDING_URL'
  if (status === 429) return 'wants fewer requests, or a quota is used up (429)'
  if (status >= 300 && status < 400) return `answered with a redirection (${status}), which is not followed`
  return `answered ${status}`
}

/** Such as ECONNREFUSED, which is some causes down. */
function codeOf(error: unknown): string {
  for (let cause = error, depth = 0; cause instanceof Error && depth < 5; cause = cause.cause, depth++) {
    const { code } = cause as { code?: unknown }
    if (typeof code === 'string' && /^[A-Z_]+$/.test(code)) return ` (${code})`
  }
  return ''
}

/** Endpoints are many: nothing of the shape of an answer is taken for granted. */
function readVectors(answer: unknown, count: number): Outcome {
  const { data } = asObject(answer)
  if (!Array.isArray(data) || data.length !== count) return unavailable('answered without the vectors')
  const vectors: Float32Array[] = []
  for (const [i, item] of data.entries()) {
    const { index = i, embedding } = asObject(item)
    const vector = readVector(embedding)
    if (vector === undefined || !isPlace(index, count)) return unavailable('answered without the vectors')
    if (vector.length !== DIMENSIONS) {
      const reason = `gives vectors of ${vector.length} numbers`
      return { kind: 'length', reason, length: vector.length }
    }
    const unit = toUnit(vector)
    if (unit === undefined) return { kind: 'refused', reason: 'gives a vector without a direction' }
    vectors[index] = unit
  }
  // each place once
  return Object.keys(vectors).length === count ? { vectors } : unavailable('answered without the vectors')
}

const isPlace = (index: unknown, count: number): index is number =>
  Number.isInteger(index) && (index as number) >= 0 && (index as number) < count

/** Numbers, or their bytes in base64, lowest first; some endpoints know one form only. */
function readVector(embedding: unknown): Float32Array | undefined {
  if (Array.isArray(embedding)) {
    return embedding.every((value) => typeof value === 'number') ? Float32Array.from(embedding) : undefined
  }
  if (typeof embedding !== 'string') return undefined
  const bytes = Buffer.from(embedding, 'base64')
  if (bytes.length === 0 || bytes.length % 4 !== 0) return undefined
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(4 * i))
}

/** Undefined for a vector of zeros, and where a number is not finite. */
function toUnit(vector: Float32Array): Float32Array | undefined {
  const length = Math.hypot(...vector)
  return length > 0 && Number.isFinite(length) ? vector.map((value) => value / length) : undefined
}

function asObject(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
}
