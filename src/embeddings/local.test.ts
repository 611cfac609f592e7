import { once } from 'node:events'
import type { Worker } from 'node:worker_threads'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { runChild } from '../../test/child.ts'
import { dialoguesFile, readDialogues } from '../../test/dialogues.ts'
import { recordingLog } from '../../test/harness.ts'
import { hasOnnx } from '../../test/onnx.ts'
import { cosine, ODD_TEXTS } from '../../test/real-embedders.ts'
import { LOCAL_MODEL, type LocalOptions, openLocal } from './local.ts'

const opened: ReturnType<typeof openLocal>[] = []
function open(engine: LocalOptions['engine']) {
  const embedder = openLocal({ engine, log: recordingLog().log })
  opened.push(embedder)
  return embedder
}
afterAll(() => Promise.all(opened.map((embedder) => embedder.close())))

/** What people say and assistants answer, some of it long. */
function dialogueTexts(count: number): string[] {
  const texts = readDialogues(dialoguesFile()).flatMap(({ messages }) =>
    messages.map(({ content, tool_calls }) =>
      typeof content === 'string' ? content : JSON.stringify(content ?? tool_calls ?? ''),
    ),
  )
  const step = Math.max(1, Math.floor(texts.length / count))
  return texts.filter((_, i) => i % step === 0).slice(0, count)
}

describe.skipIf(!hasOnnx)('both engines', () => {
  const embedWith = (engine: 'wasm' | 'onnx', texts: string[]) => open(engine).embed(texts)

  test('give the same vectors, of one name', async () => {
    const texts = [...dialogueTexts(80), ...Object.values(ODD_TEXTS)]
    const [wasm, onnx] = await Promise.all([embedWith('wasm', texts), embedWith('onnx', texts)])
    const apart = texts.flatMap((text, i) => {
      const nearness = cosine(wasm[i] as Float32Array, onnx[i] as Float32Array)
      return nearness >= 0.9999 ? [] : [[text.slice(0, 60), nearness]]
    })
    expect(apart).toEqual([])
    expect(opened.map(({ model }) => model)).toEqual([LOCAL_MODEL, LOCAL_MODEL])
    expect(opened.map(({ description }) => description).join()).toMatch(/\(wasm\).*\(onnx\)/)
  })

  test('auto is onnxruntime where it is installed', async () => {
    const auto = open('auto')
    expect(auto.description).toBe('all-MiniLM-L6-v2 in this process')
    await auto.embed(['x'])
    expect(auto.description).toBe('all-MiniLM-L6-v2 in this process (onnx)')
  })
})

describe('the thread', () => {
  const workers: Worker[] = []
  const remember = (worker: Worker) => void workers.push(worker)
  beforeAll(() => void process.on('worker', remember))
  afterAll(() => void process.off('worker', remember))
  beforeEach(() => void workers.splice(0))

  test('starts with the first call, once', async () => {
    const embedder = open('wasm')
    expect(workers).toHaveLength(0)
    await Promise.all([embedder.embed(['a']), embedder.embed(['b'])])
    expect(workers).toHaveLength(1)
    await embedder.close()
  })

  test('when it dies, what waits is unavailable, and the next call starts another', async () => {
    const embedder = open('wasm')
    // Node.js tells of a new thread a little later
    const started = once(process, 'worker')
    const waiting = [embedder.embed(['a', 'b']), embedder.embed(['c'], { urgent: true })]
    const failed = Promise.all(
      waiting.map((one) => expect(one).rejects.toMatchObject({ code: 'unavailable' })),
    )
    const [worker] = await started
    await worker.terminate()
    await failed
    expect(await embedder.embed(['d'])).toHaveLength(1)
    expect(workers).toHaveLength(2)
    // idle, it is missed only later
    await workers[1]?.terminate()
    expect(await embedder.embed(['e'])).toHaveLength(1)
    await embedder.close()
  })

  test('somebody who waits comes before the texts of the background', async () => {
    const embedder = open('wasm')
    await embedder.embed(['warm'])
    const ended: string[] = []
    const background = embedder.embed(dialogueTexts(40)).then(() => ended.push('background'))
    const later = embedder.embed(['later']).then(() => ended.push('later'))
    const urgent = embedder.embed(['a question'], { urgent: true }).then(() => ended.push('urgent'))
    await Promise.all([background, later, urgent])
    expect(ended).toEqual(['urgent', 'background', 'later'])
    await embedder.close()
  })

  test.each(hasOnnx ? ['wasm', 'onnx'] : ['wasm'])('%s: keeps no process alive', async (engine) => {
    const child = runChild('embed-and-leave.ts', { engine })
    expect(await child.rest()).toEqual([{ vectors: 2 }])
    expect(await child.exited).toBe(0)
  })
})
