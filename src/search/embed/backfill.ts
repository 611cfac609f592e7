import { setTimeout as delay } from 'node:timers/promises'
import { idAfter, newId } from '../../core/ids.ts'
import type { Embedder } from '../../embeddings/embedder.ts'
import { runLoop } from './loop.ts'
import * as models from './models/repo.ts'
import * as repo from './repo.ts'
import type { EmbeddingOptions, EmbeddingParts } from './service.ts'
import { createWorker } from './worker.ts'

export type BackfillOptions = {
  signal?: AbortSignal
  /** Told at the start and after each batch how many messages and results are done, and of how many. */
  onProgress?: (done: number, of: number) => void
  /** After how long without success it fails. Default 60. */
  giveUpAfterS?: number
}

export type BackfillReport = {
  /** Messages and results that were given their embedding, or found to have nothing to embed. */
  done: number
  interrupted: boolean
}

const LOOK_EVERY_MS = 500
const KINDS = ['message', 'analysis'] as const

/** See `backfill` of the service. */
export async function backfill(
  { database: { db }, vectors, log }: EmbeddingParts,
  embedder: Embedder,
  { leaseS = 60, backoff }: EmbeddingOptions,
  { signal = new AbortController().signal, onProgress = () => {}, giveUpAfterS = 60 }: BackfillOptions,
): Promise<BackfillReport> {
  const holder = newId()
  const worker = createWorker({ db, embedder, holder, leaseMs: leaseS * 1_000, log })
  vectors.forget()
  // what comes later is the business of whoever embeds all the time
  const until = idAfter(new Date())
  let done = 0
  let total = await countLeft()
  onProgress(done, total)

  async function countLeft(): Promise<number> {
    const counts = KINDS.map(async (kind) =>
      models.countRows(db, kind, await models.listOlderModels(db, kind, embedder.model), until),
    )
    return (await Promise.all(counts)).reduce((sum, count) => sum + count, 0)
  }

  /** False when nothing waits: what others are at may come back. */
  async function othersAreAtWork(): Promise<boolean> {
    const left = await countLeft()
    total = done + left
    if (left === 0) return false
    await delay(LOOK_EVERY_MS, undefined, { signal }).catch(() => {})
    for (const kind of KINDS) worker.due(kind)
    return true
  }

  try {
    await runLoop({
      ...{ worker, vectors, log, signal, backoff, giveUpAfterMs: giveUpAfterS * 1_000 },
      nextOptions: () => ({ urgent: false }),
      onState: () => {},
      onRound: ({ stored }) => {
        done += stored
        total = Math.max(total, done)
        onProgress(done, total)
      },
      onIdle: othersAreAtWork,
    })
  } finally {
    await repo.releaseClaims(db, holder).catch(() => {})
  }
  return { done, interrupted: signal.aborted }
}
