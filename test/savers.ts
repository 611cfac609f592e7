import { type Checkpoint, type CheckpointMetadata, uuid6 } from '@langchain/langgraph-checkpoint'
import { type SaverOptions, ThreadbaseSaver } from '../src/checkpoints/service.ts'
import type { TestDatabase } from './harness.ts'

export type Config = { configurable: Record<string, string | undefined> }

export const META: CheckpointMetadata = { source: 'loop', step: 0, parents: {} }
export const NO_ROWS = { checkpoints: 0, blobs: 0, writes: 0 }

/** A text that is kept as a value of its own. */
export const long = (n: number | string) => `${n} `.padEnd(300, 'lorem ipsum ')
/** An element that is. */
export const note = (n: number | string) => ({ id: `m${n}`, content: long(n) })

export const at = (thread: string, id?: string, ns = ''): Config => ({
  configurable: { thread_id: thread, checkpoint_ns: ns, checkpoint_id: id },
})

export function checkpointOf(
  channel_values: Record<string, unknown>,
  given: Partial<Checkpoint> = {},
): Checkpoint {
  const versions = Object.fromEntries(Object.keys(channel_values).map((name) => [name, 1]))
  return {
    v: 4,
    id: uuid6(0),
    ts: new Date().toISOString(),
    channel_values,
    channel_versions: versions,
    versions_seen: {},
    ...given,
  }
}

/** Stores values as a checkpoint that follows the one of the config. @returns its config */
export async function put(
  saver: ThreadbaseSaver,
  config: Config,
  values: Record<string, unknown>,
  metadata: object = {},
): Promise<Config> {
  const checkpoint = checkpointOf(values)
  const meta = { ...META, ...metadata }
  return (await saver.put(config, checkpoint, meta, checkpoint.channel_versions)) as Config
}

export const valuesOf = async (saver: ThreadbaseSaver, config: Config) =>
  (await saver.getTuple(config))?.checkpoint.channel_values

/** Checkpointers of one user after the other, so that tests see nothing of each other. */
export function saversOn(opened: () => TestDatabase) {
  let users = 0
  const saverOf = (userId: string, options: SaverOptions = {}) =>
    new ThreadbaseSaver(opened().database, { userId, ...options })
  return {
    /** Of the newest user. */
    userId: () => `user-${users}`,
    newSaver: (options?: SaverOptions) => saverOf(`user-${++users}`, options),
    /** Another one of the newest user, which knows nothing. */
    sameUser: (options?: SaverOptions) => saverOf(`user-${users}`, options),
    /** Rows by table. */
    countRows: async (user = `user-${users}`) => {
      const counts: Record<string, number> = {}
      for (const table of ['checkpoints', 'checkpoint_blobs', 'checkpoint_writes'] as const) {
        const { n } = await opened()
          .database.db.selectFrom(table)
          .select((e) => e.fn.countAll().as('n'))
          .where('user_id', '=', user)
          .executeTakeFirstOrThrow()
        counts[table.replace('checkpoint_', '')] = Number(n)
      }
      return counts
    },
  }
}
