import { silentLog } from '../src/core/log.ts'
import type { Embedder } from '../src/embeddings/embedder.ts'
import { openLocal } from '../src/embeddings/local.ts'
import { openThreadbase, type Threadbase } from '../src/index.ts'
import { dialoguesFile, readDialogues } from '../test/dialogues.ts'
import { alternate, perSecond, type Row, timed, warmUp } from './harness.ts'

const SECONDS = 3
const CALLERS = 16
const TARGET = 0.8
const BACKLOG = 256

type Engine = 'wasm' | 'onnx'

/** Texts of the dialogues, over and over. */
function newTexts(): () => string {
  const texts = readDialogues(dialoguesFile()).flatMap(({ messages }) =>
    messages.flatMap(({ content }) => (typeof content === 'string' ? [content] : [])),
  )
  let at = 0
  return () => texts[at++ % texts.length] as string
}

/** Appends one message a call, from many callers with a thread each, for some seconds. @returns calls a second */
async function appendRate(tb: Threadbase, next: () => string): Promise<number> {
  const scope = { userId: 'bench' }
  const threads = await Promise.all(Array.from({ length: CALLERS }, () => tb.threads.create(scope)))
  const until = performance.now() + 1_000 * SECONDS
  let calls = 0
  const { ms } = await timed(() =>
    Promise.all(
      threads.map(async ({ id }) => {
        while (performance.now() < until) {
          await tb.messages.append(scope, id, [{ role: 'user', content: next() }])
          calls++
        }
      }),
    ),
  )
  return (1_000 * calls) / ms
}

/**
 * Appending while the local model embeds what is appended, against appending without embeddings, in turn. The model is
 * at work all the time: it is slower than appends, so that a backlog grows.
 */
export async function appendRows(databaseUrl: string, rounds = 5): Promise<Row[]> {
  const next = newTexts()
  const rateWith = (embeddings: Embedder | false) => async () => {
    const databaseSchema = `bench_append_${embeddings === false ? 'off' : 'on'}`
    const options = { databaseUrl, databaseSchema, env: {} }
    // closed after each turn, as it would go on with its backlog during the other's
    await using tb = await openThreadbase({ ...options, embeddings })
    return await appendRate(tb, next)
  }
  const rows: Row[] = []
  for (const engine of ['onnx', 'wasm'] as const) {
    const embedder = openLocal({ engine, log: silentLog })
    try {
      await embedder.embed(['it is loaded by now'])
      const [on, off] = [rateWith(embedder), rateWith(false)]
      await warmUp(1, on, off)
      const rates = await alternate(rounds, { on, off })
      const ratio = rates.on / rates.off
      rows.push({
        work: `append with embeddings (${engine})`,
        figure: perSecond(rates.on),
        limit: `without: ${perSecond(rates.off)}`,
        ratio,
        target: `≥ ${TARGET}`,
        met: ratio >= TARGET,
      })
    } finally {
      await embedder.close()
    }
  }
  return rows
}

/** How fast a backlog goes, with each engine of the local model. */
export async function drainRows(databaseUrl: string, rounds = 3): Promise<Row[]> {
  const next = newTexts()
  const scope = { userId: 'bench' }
  const rateOf = (engine: Engine, embedder: Embedder) => async () => {
    const databaseSchema = `bench_drain_${engine}`
    await using filled = await openThreadbase({ databaseUrl, databaseSchema, env: {}, embeddings: false })
    const { id } = await filled.threads.create(scope)
    const messages = Array.from({ length: BACKLOG }, () => ({ role: 'user' as const, content: next() }))
    await filled.messages.append(scope, id, messages)
    await using tb = await openThreadbase({ databaseUrl, databaseSchema, env: {}, embeddings: embedder })
    const { ms } = await timed(() => tb.embeddings.backfill())
    return (1_000 * BACKLOG) / ms
  }
  const [onnx, wasm] = (['onnx', 'wasm'] as const).map((engine) => openLocal({ engine, log: silentLog })) as [
    Embedder,
    Embedder,
  ]
  try {
    for (const embedder of [onnx, wasm]) await embedder.embed(['it is loaded by now'])
    const rates = await alternate(rounds, { onnx: rateOf('onnx', onnx), wasm: rateOf('wasm', wasm) })
    return [
      { work: 'backlog of embeddings, WebAssembly', figure: perSecond(rates.wasm) },
      {
        work: 'backlog of embeddings, onnxruntime',
        figure: perSecond(rates.onnx),
        limit: `WebAssembly: ${perSecond(rates.wasm)}`,
        ratio: rates.onnx / rates.wasm,
      },
    ]
  } finally {
    await Promise.all([onnx.close(), wasm.close()])
  }
}
