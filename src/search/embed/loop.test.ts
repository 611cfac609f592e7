import { expect, test } from 'vitest'
import { until } from '../../../test/embeddings.ts'
import { recordingLog } from '../../../test/harness.ts'
import { ThreadbaseError } from '../../core/errors.ts'
import type { Vectors } from '../vectors/service.ts'
import { runLoop } from './loop.ts'
import type { NextOptions, Worker } from './worker.ts'

const space = {
  available: true,
  schema: 'public',
  version: '0.8.0',
  index: 'none',
  iterates: true,
  probes: 0,
}
const vectors = { space: async () => space, isLoss: () => false, forget: () => {} } as Vectors

function run(next: Worker['next'], limit?: number) {
  const ending = new AbortController()
  const { log, logged } = recordingLog()
  const ended = runLoop({
    ...{ vectors, log, signal: ending.signal, backoff: { firstMs: 1, maxMs: 2 } },
    worker: { next, due: () => {}, startOver: () => {} },
    nextOptions: () => ({ urgent: false, ...(limit !== undefined && { limit }) }),
    onState: () => {},
    onRound: () => {},
    onIdle: async () => false,
  })
  return { logged, ended, end: () => ending.abort() }
}

const failure = (retryAfterS?: number) => new ThreadbaseError('unavailable', 'too many', { retryAfterS })

test('a model that asks for a month is asked again within the hour', async () => {
  const { logged, ended, end } = run(async () => {
    throw failure(30 * 24 * 3_600)
  })
  await until(async () => logged.length > 0, 'it fails')
  end()
  await ended
  expect(logged.map(({ facts }) => facts.retryInMs)).toEqual([3_600_000])
})

test('after failures fewer texts are tried, and more again when it works', async () => {
  const limits: NextOptions['limit'][] = []
  const next: Worker['next'] = async ({ limit }) => {
    limits.push(limit)
    if (limits.length <= 2) throw failure()
    return limits.length === 5 ? undefined : { taken: 4, stored: 4, contended: false }
  }
  await run(next, 64).ended
  expect(limits).toEqual([64, 16, 4, 8, 16])
  limits.length = 0
  await run(next).ended
  expect(limits).toEqual([undefined, 16, 4, 8, 16])
})
