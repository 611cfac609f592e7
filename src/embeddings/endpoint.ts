import { ThreadbaseError } from '../core/errors.ts'
import { DIMENSIONS, type Embedder, type EmbedOptions } from './embedder.ts'
import { type Failure, type Outcome, request } from './endpoint-request.ts'
import { toReadable } from './text.ts'

export type EndpointOptions = {
  /** As the endpoint names it; two endpoints that have it give vectors of one space. */
  model: string
  /** Without `/embeddings`. */
  url: string
  key: string | undefined
  timeoutMs: number
}

const BATCH_SIZE = 64
/** OpenAI takes 300,000 tokens at a time; no script comes to more than three a character. */
const BATCH_CHARS = 100_000
/** What is left of a text that is refused, in turn: models read 8,192 tokens, or 512, and many do not cut by themselves. */
const SHORTER = [2_000, 400]
const PROBE = 'hello'

/** A model behind the embeddings of the OpenAI API. Its key is sent there alone: a redirection is a failure. */
export function openEndpoint(options: EndpointOptions): Embedder {
  const closing = new AbortController()
  // models of one length only may refuse the parameter, and are asked without it from then on
  let dimensions: 'untried' | 'send' | 'omit' = 'untried'

  async function ask(texts: readonly string[], signal: AbortSignal): Promise<Outcome> {
    const outcome = await request(options, texts, dimensions !== 'omit', signal)
    if ('vectors' in outcome) {
      if (dimensions === 'untried') dimensions = 'send'
      return outcome
    }
    if (dimensions !== 'untried' || outcome.kind !== 'refused') return outcome
    const without = await request(options, texts, false, signal)
    if ('vectors' in without) dimensions = 'omit'
    return without
  }

  /** @throws as {@link Embedder.embed} */
  async function askOrFail(texts: readonly string[], signal: AbortSignal): Promise<Float32Array[]> {
    let outcome = await ask(texts, signal)
    if ('vectors' in outcome) return outcome.vectors
    const [text = ''] = texts
    if (outcome.kind === 'refused' && texts.length === 1) {
      for (const length of SHORTER.filter((chars) => chars < text.length)) {
        outcome = await ask([text.slice(0, length).toWellFormed()], signal)
        if ('vectors' in outcome) return outcome.vectors
        if (outcome.kind !== 'refused') throw toError(outcome, options)
      }
      // who refuses all texts has something against us, not against this one
      const probed = await ask([PROBE], signal)
      if (!('vectors' in probed)) throw toError({ ...probed, kind: 'unavailable' }, options)
    }
    throw toError(outcome, options)
  }

  async function embed(texts: readonly string[], { signal }: EmbedOptions = {}): Promise<Float32Array[]> {
    const either = signal === undefined ? closing.signal : AbortSignal.any([signal, closing.signal])
    const vectors: Float32Array[] = []
    try {
      for (const batch of toBatches(texts)) {
        either.throwIfAborted()
        vectors.push(...(await askOrFail(batch, either)))
      }
    } catch (error) {
      signal?.throwIfAborted()
      if (closing.signal.aborted) throw new ThreadbaseError('unavailable', 'the embedding model is closed')
      throw error
    }
    return vectors
  }

  return {
    model: options.model,
    description: `${options.model} at ${new URL(options.url).host}`,
    batchSize: BATCH_SIZE,
    embed,
    close: async () => closing.abort(),
  }
}

function toBatches(texts: readonly string[]): string[][] {
  const batches: string[][] = []
  let chars = 0
  for (const whole of texts) {
    // OpenAI refuses an empty text
    const text = toReadable(whole) || ' '
    const last = batches.at(-1)
    chars += text.length
    if (last !== undefined && last.length < BATCH_SIZE && chars <= BATCH_CHARS) last.push(text)
    else {
      batches.push([text])
      chars = text.length
    }
  }
  return batches
}

function toError({ kind, reason, status, retryAfterS, length }: Failure, { model, url }: EndpointOptions) {
  const code = kind === 'refused' ? 'invalid_input' : 'unavailable'
  const message =
    kind === 'length'
      ? `EMBEDDING_MODEL must give vectors of ${DIMENSIONS} numbers: those of ${model} have ${length}`
      : `the embedding model ${model} at ${new URL(url).host} ${reason}`
  const details = Object.entries({ status, retryAfterS, length }).filter(([, value]) => value !== undefined)
  return new ThreadbaseError(code, message, { model, ...Object.fromEntries(details) })
}
