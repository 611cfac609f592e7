import { AIMessage, type BaseMessage, HumanMessage } from '@langchain/core/messages'
import {
  type BaseCheckpointSaver,
  type ChannelVersions,
  type Checkpoint,
  uuid6,
} from '@langchain/langgraph-checkpoint'

export type Saver = BaseCheckpointSaver<string | number>
export type Config = { configurable: { thread_id: string; checkpoint_ns: string; checkpoint_id?: string } }

let random = 1
let made = 0

/** Words that no compression makes much of, as those of people and models; the same in every run. */
export function words(chars: number): string {
  let text = ''
  while (text.length < chars) {
    random = (Math.imul(random, 1_103_515_245) + 12_345) >>> 0
    text += random.toString(36).slice(0, 2 + (random % 5))
    if (random % 3 !== 0) text += ' '
  }
  return text.slice(0, chars)
}

/** About 1 KB as a serializer writes it. */
export function message(): BaseMessage {
  const id = `message-${++made}`
  const content = words(850)
  return made % 2 === 1 ? new HumanMessage({ id, content }) : new AIMessage({ id, content })
}

export const messages = (count: number): BaseMessage[] => Array.from({ length: count }, message)

/** A thread whose checkpoints are made as LangGraph makes them: one version a step for all channels that change. */
export function createThread(saver: Saver, threadId: string) {
  let config: Config = { configurable: { thread_id: threadId, checkpoint_ns: '' } }
  let step = -1
  let checkpoint: Checkpoint = {
    v: 4,
    id: uuid6(-3),
    ts: '',
    channel_values: {},
    channel_versions: {},
    versions_seen: {},
  }
  return {
    threadId,
    get values() {
      return checkpoint.channel_values
    },
    get config() {
      return config
    },
    async put(changes: Record<string, unknown>): Promise<void> {
      step++
      const current = Object.values(checkpoint.channel_versions).toSorted().at(-1)
      const version = saver.getNextVersion(current)
      const newVersions: ChannelVersions = Object.fromEntries(
        Object.keys(changes).map((name) => [name, version]),
      )
      checkpoint = {
        v: 4,
        id: uuid6(step),
        ts: new Date().toISOString(),
        channel_values: { ...checkpoint.channel_values, ...changes },
        channel_versions: { ...checkpoint.channel_versions, ...newVersions },
        versions_seen: { __input__: {}, agent: { ...checkpoint.channel_versions } },
      }
      const metadata = { source: 'loop' as const, step, parents: {} }
      config = (await saver.put(config, checkpoint, metadata, newVersions)) as Config
    },
  }
}

export type BenchThread = ReturnType<typeof createThread>
