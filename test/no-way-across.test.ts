import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { ACCOUNTS } from './accounts.ts'
import { describeApi } from './http.ts'
import { anyStep, compare, openWorld, type Step, take } from './worlds.ts'

// a failure is reported with what it shrank to until then
const LIMITS = { numRuns: 15, interruptAfterTimeLimit: 40_000 }

/**
 * Ids as providers give them, and such as could be taken for each other: beginnings of others, other cases, forms of
 * the same characters, quotes, wildcards, separators of ours.
 */
const USER_IDS = [
  ...[
    'a',
    'ab',
    'A',
    'a.',
    'auth0|x',
    'auth0|x1',
    "o'b",
    'a%',
    'a_',
    '%',
    '../a',
    'a:b',
    'a*',
    'a b',
    'a,b',
    '"',
    '\\',
  ],
  ...[
    'é',
    'e\u0301',
    'Å',
    '\u212b',
    'ß',
    'ss',
    'İ',
    'i',
    '用户',
    '🙂',
    '\u202ea',
    'a\u200b',
    '{a}',
    'null',
    '\n',
  ],
]

const anyUsers = fc.uniqueArray(fc.constantFrom(...USER_IDS), { minLength: 3, maxLength: 5 })
const anySteps = fc.array(anyStep, { minLength: 1, maxLength: 80, size: 'max' })

describeApi(
  'no way across',
  (api) => {
    const play = async (
      userIds: string[],
      act: (worlds: Awaited<ReturnType<typeof openWorld>>[]) => Promise<void>,
    ) => {
      // ids that begin alike go on doing so
      const run = randomUUID().slice(0, 8)
      const worlds = []
      for (const id of userIds) worlds.push(await openWorld(api, `${run}${id}`))
      await act(worlds)
      for (const world of worlds) await compare(api, worlds, world)
    }

    test('one call after another: no answer holds anything of another user, and all keep what is theirs', async () => {
      await fc.assert(
        fc.asyncProperty(anyUsers, anySteps, (userIds, steps) =>
          play(userIds, async (worlds) => {
            for (const step of steps) await take(api, worlds, step)
          }),
        ),
        LIMITS,
      )
    })

    test('all users at the same time', async () => {
      await fc.assert(
        fc.asyncProperty(anyUsers, anySteps, (userIds, steps) =>
          play(userIds, async (worlds) => {
            const stepsOf = Map.groupBy(steps, ({ by }) => by % worlds.length)
            const inOrder = async (own: Step[]) => {
              for (const step of own) await take(api, worlds, step)
            }
            await Promise.all([...stepsOf.values()].map(inOrder))
          }),
        ),
        LIMITS,
      )
      expect(api.logged.filter(({ level }) => level >= 50)).toEqual([])
    })
  },
  { auth: ACCOUNTS },
)
