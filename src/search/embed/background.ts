import { newId } from '../../core/ids.ts'
import type { Embedder } from '../../embeddings/embedder.ts'
import { createBell } from './bell.ts'
import { type LoopState, runLoop } from './loop.ts'
import type { Kind } from './repo.ts'
import * as repo from './repo.ts'
import type { EmbeddingOptions, EmbeddingParts } from './service.ts'
import { createWorker, type Worker } from './worker.ts'

/** Embeds what waits for as long as the process lives. */
export type Background = {
  /** `stopped`: before it starts and after it is closed. */
  state(): LoopState | 'stopped'
  start(): void
  /** Something was stored that has no embedding yet; how much, about. */
  wake(kind: Kind, count?: number): void
  /** Somebody waits until `end`: calls `tell` whenever something was embedded, or will not be soon. */
  join(tell: () => void): { end(): void }
  /** Gives up what is under way, which others will do. */
  close(): Promise<void>
}

const KINDS = ['message', 'analysis'] as const
/** When so many times as much is appended as was embedded meanwhile, it rests so many times as long. */
const MANY = 2
const REST = 6
const TURN_MS = 250

export function createBackground(
  { database: { db }, vectors, log }: EmbeddingParts,
  embedder: Embedder,
  { leaseS = 60, pollS = 5, settleS = 0.1, backoff }: EmbeddingOptions,
): Background {
  const closing = new AbortController()
  const { signal } = closing
  const bell = createBell()
  const waiters = new Set<() => void>()
  let state: LoopState | 'stopped' = 'stopped'
  let arrived = 0
  let msPerRow = TURN_MS / 4
  let running: { worker: Worker; ended: Promise<void> } | undefined

  const tellAll = () => {
    for (const tell of [...waiters]) tell()
  }
  const setState = (now: LoopState) => {
    const news = now !== state && (now === 'failing' || now === 'unavailable')
    state = now
    if (news) tellAll()
  }

  /** Until something is appended; what others append is looked for now and then. */
  async function sleep(worker: Worker): Promise<boolean> {
    const rung = await bell.wait(pollS * 1_000, signal)
    if (!rung) for (const kind of KINDS) worker.due(kind)
    // what is appended together is embedded together
    else if (waiters.size === 0) await bell.settle(settleS * 1_000, signal)
    return true
  }

  /**
   * A model on this machine must not keep appends waiting: when more is appended than it does, it takes turns with
   * them, and each turn is short.
   */
  async function rest(taken: number, ms: number): Promise<void> {
    const tooMuch = arrived > MANY * taken
    arrived = 0
    msPerRow = ms / taken
    if (embedder.local === true && tooMuch && waiters.size === 0) await bell.settle(REST * ms, signal)
  }

  const nextOptions = () => ({
    urgent: waiters.size > 0,
    limit:
      embedder.local === true
        ? Math.min(embedder.batchSize, Math.max(1, Math.round(TURN_MS / msPerRow)))
        : embedder.batchSize,
  })

  async function run(worker: Worker, holder: string): Promise<void> {
    const parts = { worker, vectors, log, signal, backoff, rest, nextOptions }
    try {
      await runLoop({ ...parts, onState: setState, onRound: tellAll, onIdle: () => sleep(worker) })
    } catch (error) {
      log.error({ reason: String(error) }, 'texts get no more embeddings from this process')
    } finally {
      await repo.releaseClaims(db, holder).catch(() => {})
    }
  }

  return {
    state: () => state,
    start() {
      if (running !== undefined || signal.aborted) return
      const holder = newId()
      const worker = createWorker({ db, embedder, holder, leaseMs: leaseS * 1_000, log })
      running = { worker, ended: run(worker, holder) }
    },
    wake(kind, count = 1) {
      arrived += count
      running?.worker.due(kind)
      bell.ring()
    },
    join(tell) {
      waiters.add(tell)
      running?.worker.due('message')
      bell.hurry()
      return { end: () => void waiters.delete(tell) }
    },
    async close() {
      closing.abort()
      tellAll()
      await running?.ended
      state = 'stopped'
    },
  }
}
