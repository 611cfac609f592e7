import { hash } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { ThreadbaseError } from '../src/core/errors.ts'
import { DIMENSIONS, type Embedder, type EmbedOptions } from '../src/embeddings/embedder.ts'

/** What a test model does wrong, as long as it is set. */
export type Faults = {
  /** It does not answer; a number: and says in how many seconds it will. */
  down?: boolean | number
  /** How long each answer takes. */
  delayMs?: number
  /** It never answers, and does not look at the signal. */
  hangs?: boolean
  /** The length of its vectors. */
  length?: number
  /** It gives arrays, not what its type says. */
  arrays?: boolean
  /** It does not answer more texts at a time. */
  most?: number
  /** It refuses calls with such a text. */
  refuses?: (text: string) => boolean
}

export type TestEmbedder = Embedder & {
  faults: Faults
  /** Every text that was asked for, in calls that were answered. */
  readonly embedded: string[]
  /** How many calls there were. */
  calls(): number
}

/** Texts that share words are near to each other: each word has a direction of its own. Length 1, or 0 without a word. */
export function embedWords(text: string, length = DIMENSIONS): Float32Array {
  const vector = new Float32Array(length)
  for (const word of text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []) {
    const bytes = hash('sha512', word, 'buffer')
    for (let i = 0; i < length; i++)
      vector[i] = (vector[i] as number) + (bytes[(i * 7) % bytes.length] as number) * ((i % 3) - 1)
  }
  const norm = Math.hypot(...vector)
  return norm === 0 ? vector : vector.map((number) => number / norm)
}

/** A model without meaning, the same everywhere. */
export function newTestEmbedder(model = 'test-words', batchSize = 8): TestEmbedder {
  const faults: Faults = {}
  const embedded: string[] = []
  let calls = 0
  const self: TestEmbedder = {
    ...{ model, batchSize, faults, embedded, description: `${model} of the tests` },
    calls: () => calls,
    async embed(texts: readonly string[], { signal }: EmbedOptions = {}) {
      calls++
      const { down, delayMs, hangs, arrays, most = Infinity, length, refuses } = self.faults
      if (hangs === true) await new Promise(() => {})
      if (delayMs !== undefined) await delay(delayMs, undefined, { signal })
      if (down !== undefined && down !== false) {
        const details = typeof down === 'number' ? { retryAfterS: down } : undefined
        throw new ThreadbaseError('unavailable', 'the test model is down', details)
      }
      if (texts.length > most) throw new ThreadbaseError('unavailable', 'the test model is asked too much')
      if (refuses !== undefined && texts.some(refuses))
        throw new ThreadbaseError('invalid_input', 'the test model refuses a text')
      embedded.push(...texts)
      const vectors = texts.map((text) => embedWords(text, length))
      return arrays === true ? vectors.map((vector) => [...vector] as never) : vectors
    },
    close: async () => {},
  }
  return self
}
