import type { Embedder } from '../src/embeddings/embedder.ts'
import { openEndpoint } from '../src/embeddings/endpoint.ts'
import { openLocal } from '../src/embeddings/local.ts'
import { recordingLog } from './harness.ts'
import { hasOnnx } from './onnx.ts'
import { startOpenAiServer } from './openai-server.ts'

export type OpenedEmbedder = { embedder: Embedder; close(): Promise<void> }

/**
 * All that make vectors. Open one for a test file and share it: a local one takes a second.
 * `for (const { name, available, open } of embedders) describe.skipIf(!available)(name, () => …)`
 */
export const embedders: { name: string; available: boolean; open(): Promise<OpenedEmbedder> }[] = [
  { name: 'local, WebAssembly', available: true, open: async () => openTestLocal('wasm') },
  { name: 'local, onnxruntime', available: hasOnnx, open: async () => openTestLocal('onnx') },
  { name: 'endpoint', available: true, open: openTestEndpoint },
]

function openTestLocal(engine: 'wasm' | 'onnx'): OpenedEmbedder {
  const embedder = openLocal({ engine, log: recordingLog().log })
  return { embedder, close: embedder.close }
}

async function openTestEndpoint(): Promise<OpenedEmbedder> {
  const server = await startOpenAiServer()
  const embedder = openEndpoint({ model: 'stand-in', url: server.url, key: 'k', timeoutMs: 10_000 })
  const close = async () => {
    await embedder.close()
    await server.close()
  }
  return { embedder, close }
}

export const cosine = (a: Float32Array, b: Float32Array): number =>
  a.reduce((sum, value, i) => sum + value * (b[i] ?? Number.NaN), 0)

/** What is no ordinary text, by what it is. */
export const ODD_TEXTS: Record<string, string> = {
  nothing: '',
  spaces: ' \t\r\n\u2028\u3000',
  emoji: '\u{1f469}\u200d\u{1f467} \u{1f389} \u{1f1e9}\u{1f1ea} party',
  Chinese: '\u6771\u4eac\u5854\u3078\u884c\u304d\u305f\u3044',
  'rare ideographs': 'a\u{20000}b\u{2f800} \u{2a700}',
  Arabic: '\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645',
  'Hindi and Thai': '\u0939\u093f\u0928\u094d\u0926\u0940 \u0e01\u0e34\u0e19\u0e02\u0e49\u0e32\u0e27',
  Korean: '\ud55c\uad6d\uc5b4 \ud14d\uc2a4\ud2b8',
  'Greek capitals': '\u03a3\u0391\u03a3 \u038c\u03a3\u039f\u03a3, \u03a3.',
  accents: 'na\u00efve caf\u00e9 Z\u00fcrich \u0130stanbul \u1e9e \u01c5 e\u0301\u0323 \ufb01 \u2460',
  'lone surrogates': 'a\ud800b \udfff',
  'control characters': 'a\u0000b\u0001c\u200b\u00ad\ufeff\ufffd\ue000',
  'one long word': 'x'.repeat(5_000),
  'more tokens than it reads': 'word '.repeat(3_000),
  'more ideographs than it reads': '\u6771'.repeat(3_000),
  'a surrogate pair where it is cut': `${'a '.repeat(3_999)}a\u{1f389}`,
  'a million characters': 'The quick brown fox. '.repeat(50_000),
  'a million spaces first': `${' '.repeat(1_000_000)}fox`,
  tokens: '[CLS] [SEP] [MASK] [PAD] [UNK] ##ing [cls]',
  markup: '<b>x</b> &amp; {"a": [1, 2]} `~^|+=<>$\' OR 1=1; --',
}
