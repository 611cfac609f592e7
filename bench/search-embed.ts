import { silentLog } from '../src/core/log.ts'
import { openLocal } from '../src/embeddings/local.ts'
import { dialoguesFile, readDialogues } from '../test/dialogues.ts'
import { alternate, perSecond, type Row, timed } from './harness.ts'

const TEXTS = 128

/** Messages of the dialogues a second, in batches as the backlog comes, for each engine of the local model. */
export async function embedRates(rounds = 3): Promise<Row[]> {
  const texts = readDialogues(dialoguesFile())
    .flatMap(({ messages }) =>
      messages.flatMap(({ content }) => (typeof content === 'string' ? [content] : [])),
    )
    .filter((_, i, all) => i % Math.max(1, Math.floor(all.length / TEXTS)) === 0)
    .slice(0, TEXTS)
  const engines = {
    wasm: openLocal({ engine: 'wasm', log: silentLog }),
    onnx: openLocal({ engine: 'onnx', log: silentLog }),
  }
  const rateOf = (name: keyof typeof engines) => async () => {
    const embedder = engines[name]
    const batches = Array.from({ length: Math.ceil(texts.length / embedder.batchSize) }, (_, i) =>
      texts.slice(i * embedder.batchSize, (i + 1) * embedder.batchSize),
    )
    const { ms } = await timed(async () => {
      for (const batch of batches) await embedder.embed(batch)
    })
    return (1_000 * texts.length) / ms
  }
  try {
    // loads the models
    for (const embedder of Object.values(engines)) await embedder.embed(texts.slice(0, 4))
    const { wasm, onnx } = await alternate(rounds, { wasm: rateOf('wasm'), onnx: rateOf('onnx') })
    return [
      { work: 'embeddings of messages, WebAssembly', figure: perSecond(wasm) },
      {
        work: 'embeddings of messages, onnxruntime',
        figure: perSecond(onnx),
        limit: `WebAssembly: ${perSecond(wasm)}`,
        ratio: onnx / wasm,
      },
    ]
  } finally {
    for (const embedder of Object.values(engines)) await embedder.close()
  }
}
