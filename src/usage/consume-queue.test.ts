import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { ThreadbaseError } from '../core/errors.ts'
import { createConsumeQueue, type Wanted } from './consume-queue.ts'
import type { UsageRecord } from './schema.ts'

const LIMIT = 10

/** Counts to a limit, in statements that end when they are told to. */
function openCounters({ lanes = 1, fail = (_: Wanted[]): unknown => undefined } = {}) {
  const used = new Map<string, number>()
  const statements: string[][] = []
  const held: (() => void)[] = []
  const consume = createConsumeQueue(
    async (wanted) => {
      statements.push(wanted.map(({ userId, n }) => `${userId} ${n}`))
      await new Promise<void>((resolve) => held.push(resolve))
      const error = fail(wanted)
      if (error !== undefined) throw error
      const counted = new Map<string, UsageRecord>()
      for (const { userId, n } of wanted) {
        const sum = (used.get(userId) ?? 0) + n
        if (sum > LIMIT) continue
        used.set(userId, sum)
        counted.set(userId, recordOf(sum))
      }
      return counted
    },
    { lanes },
  )
  const ask = (userId: string, n = 1) =>
    consume({ userId, n, tier: 'free', mostOfNew: LIMIT }).then(
      (record) => record?.dailyUsed ?? 'refused',
      (error: Error) => error.message,
    )
  const end = async () => {
    held.shift()?.()
    await turn()
    await turn()
  }
  const endAll = async () => {
    while (held.length > 0) await end()
  }
  return { ask, end, endAll, statements, used }
}

function recordOf(sum: number): UsageRecord {
  const days = { lastResetDaily: '2026-01-31', lastResetMonthly: '2026-01-01' }
  const limits = { tier: 'free', dailyLimit: null, monthlyLimit: null }
  return { ...limits, ...days, dailyUsed: sum, monthlyUsed: sum, totalQueries: sum }
}

describe('calls that wait at the same time', () => {
  test('a lone one leaves at once; others gather, those of one user as one', async () => {
    const { ask, endAll, statements } = openCounters()
    const asked = [ask('a'), ask('a', 2), ask('b'), ask('a', 3)]
    expect(statements).toEqual([['a 1']])
    await endAll()
    expect(statements).toEqual([['a 1'], ['a 5', 'b 1']])
    // each with what was counted up to it
    expect(await Promise.all(asked)).toEqual([1, 3, 1, 6])
  })

  test('the calls of a user under way wait, also with a lane that is free', async () => {
    const { ask, endAll, statements } = openCounters({ lanes: 2 })
    const asked = [ask('a'), ask('a'), ask('b'), ask('b')]
    expect(statements).toEqual([['a 1'], ['b 1']])
    await endAll()
    expect(statements).toEqual([['a 1'], ['b 1'], ['a 1'], ['b 1']])
    expect(await Promise.all(asked)).toEqual([1, 2, 1, 2])
  })

  test('who is too much together is tried alone, in order, and keeps nobody else', async () => {
    const { ask, endAll, used, statements } = openCounters()
    const asked = [ask('a', 7), ask('a', 2), ask('a', 5), ask('a', 1), ask('b', 11), ask('c', 1)]
    await endAll()
    expect(await Promise.all(asked)).toEqual([7, 9, 'refused', 10, 'refused', 1])
    expect(used).toEqual(
      new Map([
        ['a', 10],
        ['c', 1],
      ]),
    )
    expect(statements[1]).toEqual(['a 8', 'b 11', 'c 1'])
  })

  test('an error that may be of one of them is of that one alone', async () => {
    const fail = (wanted: Wanted[]) =>
      wanted.some(({ userId, n }) => userId === 'b' && n !== 1) ? new Error('bad') : undefined
    const { ask, endAll } = openCounters({ fail })
    const asked = [ask('a'), ask('a'), ask('b', 2), ask('c'), ask('b', 1)]
    await endAll()
    expect(await Promise.all(asked)).toEqual([1, 2, 'bad', 1, 1])
  })

  test('a database that does not answer refuses all who wait, and the next are tried again', async () => {
    let away = true
    const { ask, end, endAll, used, statements } = openCounters({
      fail: () => (away ? new ThreadbaseError('unavailable', 'away') : undefined),
    })
    const asked = [ask('a'), ask('a'), ask('b')]
    await end()
    expect(await Promise.all(asked)).toEqual(['away', 'away', 'away'])
    expect(statements).toHaveLength(1)
    away = false
    const later = ask('a')
    await endAll()
    expect(await later).toBe(1)
    expect(used).toEqual(new Map([['a', 1]]))
  })
})
