import { Annotation, Command, END, interrupt, MemorySaver, START, StateGraph } from '@langchain/langgraph'
import type { BaseCheckpointSaver } from '@langchain/langgraph-checkpoint'
import { describe, expect, test } from 'vitest'
import { engines } from '../../test/harness.ts'
import { nextVersion } from './versions.ts'

function graphOn(checkpointer: unknown) {
  const notes = Annotation<string[]>({ reducer: (a, b) => [...a, ...b], default: () => [] })
  return new StateGraph(Annotation.Root({ notes }))
    .addNode('first', () => ({ notes: ['first'] }))
    .addNode('ask', () => ({ notes: [interrupt<string, string>('go on?')] }))
    .addEdge(START, 'first')
    .addEdge('first', 'ask')
    .addEdge('ask', END)
    .compile({ checkpointer: checkpointer as BaseCheckpointSaver })
}

const config = { configurable: { thread_id: 't' } }

for (const engine of engines) {
  describe.skipIf(!engine.available)(engine.name, () => {
    test('a thread that another checkpointer began, with versions that are integers, goes on', async () => {
      const opened = await engine.open()
      const theirs = new MemorySaver()
      const ours = opened.tb.forUser('u').checkpointer
      await graphOn(theirs).invoke({ notes: ['hello'] }, config)
      await graphOn(theirs).invoke(new Command({ resume: 'yes' }), config)
      for await (const { parentConfig, checkpoint, metadata } of theirs.list(config))
        await ours.put(
          parentConfig ?? config,
          checkpoint,
          metadata ?? { source: 'loop', step: 0, parents: {} },
        )
      for (const saver of [theirs, ours]) {
        await graphOn(saver).invoke({ notes: ['again'] }, config)
        const { notes } = await graphOn(saver).invoke(new Command({ resume: 'no' }), config)
        expect(notes).toEqual(['hello', 'first', 'yes', 'again', 'first', 'no'])
      }
      await opened.close()
    })
  })
}

test('the next version is of the kind of the one before, greater, and no other', () => {
  for (const before of [0, 7, 7.25, 1e9]) {
    const [one, other] = [nextVersion(before), nextVersion(before)] as [number, number]
    expect(one).not.toBe(other)
    expect(Math.min(one, other)).toBeGreaterThan(before)
    expect(Math.floor(one)).toBe(Math.floor(before) + 1)
    expect(nextVersion(one)).toBeGreaterThan(other)
  }
  for (const before of [undefined, '7', '00000000000000000000000000000002.0.24', nextVersion(undefined)]) {
    const [one, other] = [nextVersion(before), nextVersion(before)] as [string, string]
    expect(one).not.toBe(other)
    expect(one > (before ?? '')).toBe(true)
    expect(nextVersion(one) > other).toBe(true)
  }
})
