import { beforeAll, describe, expect, test } from 'vitest'
import { openThreadbase } from '../../src/index.ts'
import { checkpointOf, META } from '../savers.ts'
import { availableStores, cleanUpAfterAll, type Environment, runHere } from './processes.ts'

cleanUpAfterAll()

describe.each(availableStores)('threadbase checkpoints on $name', ({ newEnv }) => {
  let env: Environment

  beforeAll(async () => {
    env = await newEnv()
    await using tb = await openThreadbase({ env: env as Record<string, string> })
    for (const [user_id, thread_id, steps] of [
      ['local', 'a', 5],
      ['local', 'b', 2],
      ['anna', 'a', 3],
    ] as const) {
      let config: object = { configurable: { user_id, thread_id, checkpoint_ns: '' } }
      for (let i = 0; i < steps; i++) {
        const ts = i === 0 ? '2020-01-01T00:00:00.000Z' : new Date().toISOString()
        const checkpoint = checkpointOf({ n: i }, { ts })
        config = await tb.checkpointer.put(config, checkpoint, META, { n: i })
      }
    }
  })

  const words = (text: string) =>
    text
      .trim()
      .split('\n')
      .map((line) => line.split(/\s+/).at(-1))

  test('list shows the threads of a user', async () => {
    const { code, stdout, stderr } = await runHere(['checkpoints', 'list'], env)
    expect([code, stderr, words(stdout)]).toEqual([0, '', ['a', 'b']])
    const json = await runHere(['checkpoints', 'list', '--user', 'anna', '--json'], env)
    expect(JSON.parse(json.stdout)).toEqual({
      thread_id: 'a',
      checkpoint_id: expect.any(String),
      updated_at: expect.stringMatching(/^20/),
    })
    expect((await runHere(['checkpoints', 'list', '--user', 'nobody'], env)).stdout).toBe('')
  })

  test('prune removes what is old, of a user or of all', async () => {
    const prune = async (...args: string[]) => (await runHere(['checkpoints', 'prune', ...args], env)).stdout
    expect(await prune('--older-than', '1d', '--thread', 'b')).toBe(
      'removed 1 checkpoints and 0 writes; looked at 1 threads\n',
    )
    expect(await prune('--older-than', '1d', '--all-users')).toBe(
      'removed 2 checkpoints and 0 writes; looked at 3 threads\n',
    )
    expect(await prune('--keep-latest', '3')).toBe(
      'removed 1 checkpoints and 0 writes; looked at 2 threads\n',
    )
    expect(await prune()).toBe('removed 2 checkpoints and 0 writes; looked at 2 threads\n')
    expect(await prune('--user', 'anna')).toBe('removed 1 checkpoints and 0 writes; looked at 1 threads\n')
  })

  test('delete removes a thread, of its user only', async () => {
    const foreign = await runHere(['checkpoints', 'delete', 'b', '--user', 'anna'], env)
    expect([foreign.code, foreign.stderr]).toEqual([
      3,
      'threadbase: user anna has no checkpoints of thread b\n',
    ])
    expect((await runHere(['checkpoints', 'delete', 'b'], env)).stdout).toBe('deleted b\n')
    expect(words((await runHere(['checkpoints', 'list'], env)).stdout)).toEqual(['a'])
    expect((await runHere(['checkpoints', 'delete', 'b'], env)).code).toBe(3)
  })

  test.each([
    [['--older-than', '3 weeks'], '--older-than must be a time such as 90s, 12h, 30d or 8w'],
    [['--keep-latest', '-1'], '--keep-latest must be a whole number'],
  ])('a bad value is refused: %j', async (args, message) => {
    const { code, stderr } = await runHere(['checkpoints', 'prune', ...args], env)
    expect([code, stderr]).toEqual([2, `threadbase: ${message}\n`])
  })
})
