import { setTimeout as delay } from 'node:timers/promises'
import { isThreadbaseError, ThreadbaseError } from '../../core/errors.ts'
import type { Logger } from '../../core/log.ts'
import type { Vectors } from '../vectors/service.ts'
import type { Round } from './rounds.ts'
import type { NextOptions, Worker } from './worker.ts'

export type LoopState =
  /** Nothing waits. */
  | 'idle'
  | 'working'
  /** The model, or the database, does not answer: it is tried again. */
  | 'failing'
  /** The database has nothing to keep embeddings in. */
  | 'unavailable'

export type LoopOptions = {
  worker: Worker
  vectors: Vectors
  log: Logger
  signal: AbortSignal
  /** For the next batch. */
  nextOptions(): Pick<NextOptions, 'urgent' | 'limit'>
  onState(state: LoopState): void
  onRound(round: Round): void
  /** Between batches, with how many rows the last one had and how long it took: resolves when the next may begin. */
  rest?(taken: number, ms: number): Promise<void>
  /** Nothing is left: resolves when it should be looked again; false ends the loop. */
  onIdle(): Promise<boolean>
  /** After how long without success an error ends the loop. Default: never. */
  giveUpAfterMs?: number
  /** Over {@link BACKOFF}. */
  backoff?: Partial<typeof BACKOFF>
}

export const BACKOFF = {
  firstMs: 500,
  maxMs: 60_000,
  /** Where the extension is missing. */ missingMs: 30_000,
}
/** Who asks for more has its quota raised before that, or is asked in vain. */
const MAX_ASKED_MS = 3_600_000
/** When another process was faster, or a user's data is being erased. */
const NEXT_MOMENT_MS = 50

/**
 * Embeds what waits, until it is aborted or told to end. Whatever fails is tried again, with growing pauses.
 * @throws the last error when it gives up; unavailable, also then, where there is nothing to keep embeddings in
 */
export async function runLoop(options: LoopOptions): Promise<void> {
  const { worker, vectors, signal, onState, onRound, onIdle, giveUpAfterMs = Infinity } = options
  const backoff = { ...BACKOFF, ...options.backoff }
  const troubles = createTroubles(options.log, backoff)
  const portions = createPortions()
  // what gives up some time keeps the process until then
  const isCommand = giveUpAfterMs !== Infinity
  const pause = (ms: number) => delay(ms, undefined, { signal, ref: isCommand }).catch(() => {})
  while (!signal.aborted) {
    try {
      const space = await vectors.space()
      if (!space.available) {
        onState('unavailable')
        if (giveUpAfterMs !== Infinity) throw missing()
        troubles.noteMissing()
        await pause(backoff.missingMs)
        continue
      }
      if (troubles.missingIsOver()) worker.startOver()
      onState(troubles.failing() ? 'failing' : 'working')
      const began = performance.now()
      const given = portions.take(options.nextOptions())
      const round = await worker.next({ ...given, extensionSchema: space.schema, signal })
      troubles.over()
      portions.more()
      if (round !== undefined) onRound(round)
      if (round === undefined) {
        onState('idle')
        if (!(await onIdle())) return
      } else if (round.contended) {
        await pause(NEXT_MOMENT_MS * (0.5 + Math.random()))
      } else {
        await options.rest?.(round.taken, performance.now() - began)
      }
    } catch (error) {
      if (signal.aborted) return
      if (giveUpAfterMs !== Infinity && isMissing(error)) throw error
      // of a user whose data was erased since the rows were looked for: they are not found again
      if (isThreadbaseError(error, 'forbidden')) {
        await pause(NEXT_MOMENT_MS)
        continue
      }
      vectors.isLoss(error)
      portions.less()
      onState('failing')
      const pauseMs = troubles.add(error, giveUpAfterMs)
      if (pauseMs === undefined) throw error
      await pause(pauseMs)
    }
  }
}

/** A batch is stored whole or not at all: after a failure there are fewer rows in each, until it goes well again. */
function createPortions() {
  const first = 16
  let most = Infinity
  return {
    less() {
      most = most === Infinity ? first : Math.max(1, Math.floor(most / 4))
    },
    more() {
      most = most >= first ? Infinity : 2 * most
    },
    take<T extends { limit?: number }>(given: T): T {
      return most === Infinity ? given : { ...given, limit: Math.min(most, given.limit ?? most) }
    },
  }
}

const MISSING = 'embeddings_missing'
const AGAIN = 'texts are given their embeddings again'

function missing(): ThreadbaseError {
  return new ThreadbaseError(
    'unavailable',
    'the database has nothing to keep embeddings in: `threadbase db upgrade` says what is missing',
    { reason: MISSING },
  )
}

const isMissing = (error: unknown) => isThreadbaseError(error) && error.details?.reason === MISSING

/** Counts failures in a row, says of each, and how long to wait. */
function createTroubles(log: Logger, { firstMs, maxMs }: typeof BACKOFF) {
  let count = 0
  let since = 0
  let saidMissing = false
  return {
    failing: () => count > 0,
    over() {
      if (count > 0) log.info({}, AGAIN)
      count = 0
    },
    noteMissing() {
      if (!saidMissing)
        log.warn(
          {},
          'the database has nothing (more) to keep embeddings in: texts get none until it is prepared again, at a start or by `threadbase db upgrade`',
        )
      saidMissing = true
    },
    missingIsOver: () => {
      if (saidMissing) log.info({}, AGAIN)
      const was = saidMissing
      saidMissing = false
      return was
    },
    /** @returns undefined to give up */
    add(error: unknown, giveUpAfterMs: number): number | undefined {
      if (count === 0) since = performance.now()
      count++
      const leftMs = giveUpAfterMs - (performance.now() - since)
      if (leftMs <= 0) return undefined
      const asked = isThreadbaseError(error) ? error.details?.retryAfterS : undefined
      const grown = Math.min(maxMs, firstMs * 2 ** Math.min(count - 1, 20)) * (0.5 + Math.random() / 2)
      const wanted =
        typeof asked === 'number' ? Math.max(grown, Math.min(asked * 1_000, MAX_ASKED_MS)) : grown
      const pauseMs = Math.min(wanted, leftMs)
      const facts = { attempt: count, retryInMs: Math.round(pauseMs), reason: reasonOf(error) }
      // what is no error of ours to expect is a bug
      if (isThreadbaseError(error)) log.warn(facts, 'texts wait for their embeddings')
      else log.error(facts, 'texts wait for their embeddings')
      return pauseMs
    },
  }
}

const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
