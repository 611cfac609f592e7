import { ThreadbaseError } from '../../core/errors.ts'
import { requireUuid } from '../../core/ids.ts'
import type { Logger } from '../../core/log.ts'
import { type Scope, userOf } from '../../core/scope.ts'
import type { Database } from '../../db/database.ts'
import type { Embedder, EmbedOptions } from '../../embeddings/embedder.ts'
import { type BuildOptions, type BuildReport, buildIndex, type Vectors } from '../vectors/service.ts'
import { type BackfillOptions, type BackfillReport, backfill } from './backfill.ts'
import { type Background, createBackground } from './background.ts'
import type { BACKOFF, LoopState } from './loop.ts'
import * as models from './models/repo.ts'
import * as repo from './repo.ts'
import { type EmbeddingStatus, readStatus } from './status.ts'

export type { BackfillOptions, BackfillReport } from './backfill.ts'
export type { EmbeddingStatus, ModelStatus } from './status.ts'

export type EmbeddingParts = {
  database: Pick<Database, 'db' | 'forUser' | 'engine' | 'schema'>
  vectors: Vectors
  /** Undefined: embeddings are off. */
  embedder: Embedder | undefined
  log: Logger
}

export type EmbeddingOptions = {
  /** How long what a process has claimed is its own when nothing is heard of it. Default 60. */
  leaseS?: number
  /** How often it is looked for what other processes appended. Default 5. */
  pollS?: number
  /** How long appends gather before they are embedded, unless somebody waits. Default 0.1. */
  settleS?: number
  backoff?: Partial<typeof BACKOFF>
}

/** Of the work in this process. `off`: there is no model; `stopped`: this process does none. */
export type EmbeddingState = LoopState | 'off' | 'stopped'

/** What came of waiting. `off`: no embedding will come, as there is no model or nothing to keep it in. */
export type Waited = 'embedded' | 'pending' | 'off'

export type WaitOptions = {
  /** Default 30. */
  timeoutS?: number
  /** Ends waiting as if the time were over. */
  signal?: AbortSignal
}

export type EmbeddingService = {
  /** The name that new embeddings have; undefined where they are off. */
  readonly model: string | undefined
  /** Asks the model. @throws unsupported where embeddings are off, and as {@link Embedder.embed} */
  embed(texts: readonly string[], options?: EmbedOptions): Promise<Float32Array[]>
  /**
   * Waits until a user's messages have their embeddings, or the model has found nothing to embed in them.
   * @param ids of messages; those that are not there are not waited for
   * @returns `pending` when the time is over, and at once while the model or the database does not answer
   */
  wait(scope: Scope, ids: string[], options?: WaitOptions): Promise<Waited>
  /** How far it is, of all users. It looks at each message: for millions that takes seconds. */
  status(): Promise<EmbeddingStatus>
  /** How many messages and results no model has come to, of all users; counted every 15 s, up to 100,000 of each. */
  backlog(): Promise<number>
  /**
   * Embeds all that waits, of all users; other processes may do so at the same time.
   * @throws unavailable when the model does not answer for long, or there is nothing to keep embeddings in; unsupported
   *   where they are off
   */
  backfill(options?: BackfillOptions): Promise<BackfillReport>
  /**
   * Makes the index of embeddings, anew if there is one, which is used until then. Appends and searches go on.
   * @throws unsupported on the embedded store; unavailable without the extension and the columns; conflict while another
   *   process does the same
   */
  buildIndex(options: BuildOptions): Promise<BuildReport>
}

/** With what whoever opens it calls. */
export type InnerEmbeddingService = EmbeddingService & Pick<Background, 'start' | 'wake' | 'close'>

/** The model that was used last for a database; undefined before the first. */
export const findEmbeddingModel = ({ db }: Pick<Database, 'db'>): Promise<string | undefined> =>
  models.findNewest(db)

const WAIT_S = 30
/** How often who waits looks, beside when this process has embedded something. */
const LOOK_EVERY_MS = 500
const BACKLOG_EVERY_MS = 15_000
const BACKLOG_LIMIT = 100_000

/** Gives messages and results of sessions their embeddings, in the background. */
export function createEmbeddingService(
  parts: EmbeddingParts,
  options: EmbeddingOptions = {},
): InnerEmbeddingService {
  const { database, vectors } = parts
  const embedder = database.engine === 'none' ? undefined : parts.embedder
  const background = embedder === undefined ? undefined : createBackground(parts, embedder, options)
  const state = (): EmbeddingState => background?.state() ?? 'off'

  async function isDone(userId: string, ids: string[]): Promise<boolean> {
    return !(await repo.isWaiting(database.forUser(userId), userId, ids))
  }

  return {
    model: embedder?.model,
    start: () => background?.start(),
    wake: (kind, count) => background?.wake(kind, count),
    close: async () => background?.close(),

    async embed(texts, given) {
      if (embedder === undefined) throw isOff()
      return embedder.embed(texts, given)
    },

    async wait(scope, ids, { timeoutS = WAIT_S, signal } = {}) {
      const userId = userOf(scope)
      const wanted = ids.map((id) => requireUuid(id, 'message id'))
      const until = performance.now() + timeoutS * 1_000
      if (background === undefined) return 'off'
      const listener = listen(background)
      try {
        if (!(await vectors.space()).available) return 'off'
        for (;;) {
          const news = listener.next(LOOK_EVERY_MS)
          if (await isDone(userId, wanted)) return 'embedded'
          if (background.state() === 'unavailable') return 'off'
          const over = performance.now() >= until || signal?.aborted === true
          if (over || background.state() === 'failing') return 'pending'
          await news
        }
      } catch (error) {
        // the messages are stored, whatever becomes of waiting
        const reason = error instanceof Error ? error.message : String(error)
        parts.log.warn({ reason }, 'who waits for embeddings hears nothing of them')
        return 'pending'
      } finally {
        listener.end()
      }
    },

    status: async () => readStatus(parts, state()),
    backlog: keepFor(BACKLOG_EVERY_MS, async () =>
      embedder === undefined ? 0 : models.countWaiting(database.db, BACKLOG_LIMIT),
    ),

    async backfill(given = {}) {
      if (embedder === undefined) throw isOff()
      return backfill(parts, embedder, options, given)
    },

    async buildIndex(given) {
      vectors.forget()
      const space = await vectors.space()
      try {
        return await buildIndex(database, space.available ? space : undefined, given)
      } finally {
        vectors.forget()
      }
    },
  }
}

/** Somebody who waits until something was embedded. */
function listen(background: Background) {
  let tell = () => {}
  const joined = background.join(() => tell())
  return {
    /** Resolves when there are news since the call, or after a while. */
    next(ms: number): Promise<void> {
      return new Promise((resolve) => {
        const timer = setTimeout(resolve, ms)
        tell = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    },
    end() {
      joined.end()
      tell()
    },
  }
}

/** Asks again when the last answer is older than this. */
function keepFor<T>(ms: number, ask: () => Promise<T>): () => Promise<T> {
  let known: { answer: Promise<T>; until: number } | undefined
  return () => {
    if (known === undefined || known.until < performance.now()) {
      const mine = { answer: ask(), until: performance.now() + ms }
      known = mine
      mine.answer.catch(() => {
        if (known === mine) known = undefined
      })
    }
    return known.answer
  }
}

function isOff(): ThreadbaseError {
  return new ThreadbaseError(
    'unsupported',
    'embeddings are off: set EMBEDDING_MODEL to `local`, or to the name of a model',
    { variable: 'EMBEDDING_MODEL' },
  )
}
