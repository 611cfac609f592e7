import { AIMessage, type BaseMessage, RemoveMessage } from '@langchain/core/messages'
import type { RunnableConfig } from '@langchain/core/runnables'
import { Command } from '@langchain/langgraph'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../harness.ts'
import { type OpenAiServer, startOpenAiServer } from '../openai-server.ts'
import { agentScript, buildAgent, says } from './agent.ts'
import { at, newest, run, type Side, startPair } from './compare.ts'

let server: OpenAiServer
beforeAll(async () => {
  server = await startOpenAiServer(agentScript)
})
afterAll(() => server?.close())

const messagesOf = ({ history }: Side) => (history[0]?.values?.messages ?? []) as BaseMessage[]
const textsOf = (side: Side) => messagesOf(side).map(({ text }) => text)

for (const engine of engines) {
  describe.skipIf(!engine.available)(`an agent as with MemorySaver on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())
    let users = 0
    const newPair = () => startPair(opened, `user-${++users}`, buildAgent(server.url))

    test('turns, tools, errors of a tool and of the model', async () => {
      const { ours, step, failingStep, compareAll } = newPair()
      await step(run(says('hello')))
      await step(run(says('look Oslo Rome Nowhere')))
      expect(textsOf(ours).slice(2)).toEqual([
        'look Oslo Rome Nowhere',
        'One moment.',
        'Oslo: 4 degrees',
        'Rome: 4 degrees',
        expect.stringContaining('no such place'),
        expect.stringMatching(/^7 messages so far/),
      ])
      expect((await failingStep(run(says('break it')))).message).toContain('broken on purpose')
      await failingStep(run(null))
      await step(run(says('look Bergen')))
      await compareAll()
    })

    test('a model that streams, its messages in pieces', async () => {
      const { ours, step, compareAll } = newPair()
      await step(run(says('look Oslo Rome'), { streamMode: 'messages' }))
      expect(server.requests.at(-1)?.stream).toBe(true)
      expect(textsOf(ours)).toHaveLength(5)
      await compareAll()
    })

    test('interrupt, resume with an approval and with a refusal', async () => {
      const { ours, step, compareAll } = newPair()
      expect(await step(run(says('book Oslo')))).toMatchObject({
        __interrupt__: [{ value: { approve: [{ city: 'Oslo' }] } }],
      })
      // invoked without an answer it asks again
      await step(run(null))
      await step(run(new Command({ resume: 'yes' })))
      expect(textsOf(ours)).toContain('A room in Oslo is booked.')
      await step(run(says('book Rome')))
      await step(run(new Command({ resume: 'too dear', update: { notes: ['asked'] } })))
      expect(textsOf(ours)).toContain('too dear')
      // a new question instead of an answer leaves the interrupt behind
      await step(run(says('book Bergen')))
      await step((side) => {
        const { messages } = says('never mind')
        const call = new RemoveMessage({ id: messagesOf(side).at(-1)?.id ?? '' })
        return run(new Command({ goto: 'answer', update: { messages: [call, ...messages] } }))(side)
      })
      await step(run(null, { interruptBefore: ['answer'] }))
      await compareAll()
    })

    test('static interrupts, before and after a node', async () => {
      const { ours, step, compareAll } = newPair()
      await step(run(says('look Oslo'), { interruptBefore: ['tools'] }))
      expect(ours.history[0]?.next).toEqual(['tools'])
      await step(run(null, { interruptAfter: ['tools'] }))
      expect(ours.history[0]?.next).toEqual(['answer'])
      await step(run(null))
      expect(ours.history[0]?.next).toEqual([])
      await compareAll()
    })

    test('updateState: values, as another node, messages replaced and removed', async () => {
      const { ours, step, failingStep, compareAll } = newPair()
      await step(run(says('look Oslo')))
      await step(({ graph, config }) => graph.updateState(config, { notes: ['by hand'], approved: 9 }))
      await step(({ graph, config }) => graph.updateState(config, says('look Oslo!', 'look Oslo')))
      expect(textsOf(ours)[0]).toBe('look Oslo!')
      await step((side) => {
        const gone = messagesOf(side).slice(1)
        const messages = gone.map(({ id = '' }) => new RemoveMessage({ id }))
        return side.graph.updateState(side.config, { messages })
      })
      const forged = new AIMessage({
        content: 'forged',
        id: 'forged',
        tool_calls: [{ name: 'look_up', args: { city: 'Paris' }, id: 'call_forged' }],
      })
      await step(({ graph, config }) => graph.updateState(config, says('again'), 'tools'))
      await step(({ graph, config }) => graph.updateState(config, { messages: [forged] }, 'answer'))
      await step(run(null))
      await failingStep(({ graph, config }) => graph.updateState(config, {}, 'no such node'))
      await compareAll()
    })

    test('time travel and forks: each branch goes on from its own values', async () => {
      const { ours, theirs, step, compareAll } = newPair()
      await step(run(says('book Oslo')))
      await step(run(new Command({ resume: 'yes' })))
      await step(run(says('look Rome')))
      const straight = ours.history.length
      // again from the middle, as it was
      await step((side) => side.graph.invoke(null, at(side, 'tools')))
      expect(ours.history.length).toBeGreaterThan(straight)
      // the question of long ago has its answer already; in a fork it is asked once more
      await step((side) => side.graph.invoke(new Command({ resume: 'ignored' }), at(side, 'review', -1)))
      expect(textsOf(ours)).toContain('A room in Oslo is booked.')
      await step((side) => side.graph.updateState(at(side, 'review', -1), { notes: ['again'] }, 'answer'))
      await step((side) => side.graph.invoke(null, newest(side)))
      await step(run(new Command({ resume: 'not there' })))
      expect(textsOf(ours)).toContain('not there')

      const branches = new Map<Side, object[]>()
      const tipOf = (side: Side, branch: number) => branches.get(side)?.[branch] as RunnableConfig
      const keepTip = (side: Side, branch: number) =>
        branches.set(side, (branches.get(side) ?? []).with(branch, newest(side)))
      await step(async (side) => {
        const end = at(side, undefined, -1)
        const fork = await side.graph.updateState(
          end,
          { ...says('look Athens'), notes: ['forked'] },
          '__start__',
        )
        branches.set(side, [end, fork])
        return fork
      })
      for (const [branch, input] of [
        [1, null],
        [0, says('look Bergen')],
        [1, says('look Corfu')],
        [0, says('look Delft')],
      ] as const) {
        await step((side) => side.graph.invoke(input, tipOf(side, branch)))
        for (const side of [ours, theirs]) keepTip(side, branch)
      }
      expect(textsOf(ours)).toEqual(expect.arrayContaining(['Bergen: 6 degrees', 'Delft: 5 degrees']))
      expect(textsOf(ours)).not.toContain('Athens: 6 degrees')
      await step((side) => side.graph.updateState(tipOf(side, 1), { notes: ['the end of the fork'] }))
      expect(textsOf(ours)).toEqual(expect.arrayContaining(['Athens: 6 degrees', 'Corfu: 5 degrees']))
      expect(textsOf(ours)).not.toContain('Bergen: 6 degrees')
      await compareAll()
    })
  })
}
