import type { Logger } from '../../core/log.ts'
import type { Database } from '../../db/database.ts'
import type { Embedder } from '../../embeddings/embedder.ts'
import { embedTexts } from './embed-texts.ts'
import * as repo from './repo.ts'

export type RoundParts = {
  db: Database['db']
  embedder: Pick<Embedder, 'model' | 'batchSize' | 'embed' | 'local'>
  /** Of this process, or this run of a command: whose claims are whose. */
  holder: string
  leaseMs: number
  log: Logger
}

type RoundOptions = {
  kind: repo.Kind
  /** See {@link repo.claim}. */
  of: string | null
  /** Of the extension `vector`. */
  extensionSchema: string
  /** How many rows at most. Default: as many as the model takes with profit. */
  limit?: number
  urgent: boolean
  signal: AbortSignal
}

/** What a round found; `stored` without rows that are gone meanwhile. */
export type Round = { taken: number; stored: number; contended: boolean }

/** However the model is made, an answer that takes longer will not come. */
const MAX_EMBED_MS = 300_000

/**
 * Claims some rows, embeds them outside of any transaction, and stores that. When it fails the rows are free again.
 * @throws unavailable; what the database says without the column
 */
export async function runRound(parts: RoundParts, options: RoundOptions): Promise<Round> {
  const { db, embedder, holder, leaseMs } = parts
  const { model, batchSize } = embedder
  const { kind, of, limit = batchSize } = options
  const { rows, contended } = await repo.claim(db, { kind, of, model, holder, leaseMs, limit })
  if (rows.length === 0) return { taken: 0, stored: 0, contended }
  const renewal = setInterval(() => {
    // who cannot renew works on: at worst another does the same
    void repo.renewClaims(db, holder, leaseMs).catch(() => {})
  }, leaseMs / 3)
  try {
    const copies = rows.filter(({ copyOf }) => copyOf !== null)
    const copied = copies.length === 0 ? 0 : await repo.copyEmbeddings(db, copies, { model, holder })
    const stored = await embedRows(
      parts,
      rows.filter(({ copyOf }) => copyOf === null),
      options,
    )
    return { taken: rows.length, stored: copied + stored, contended }
  } catch (error) {
    await repo.releaseClaims(db, holder).catch(() => {})
    throw error
  } finally {
    clearInterval(renewal)
  }
}

async function embedRows(
  { db, embedder, holder, log }: RoundParts,
  rows: repo.Claimed[],
  { kind, extensionSchema, urgent, signal }: RoundOptions,
): Promise<number> {
  if (rows.length === 0) return 0
  const { model } = embedder
  const limited = AbortSignal.any([signal, AbortSignal.timeout(MAX_EMBED_MS)])
  const onRefused = (place: number, reason: string) =>
    // never the text itself
    log.warn(
      // what others say may repeat the text
      { model, kind, id: rows[place]?.id, ...(embedder.local === true && { reason }) },
      'the embedding model refuses a text: it gets no embedding',
    )
  const texts = rows.map(({ text }) => text)
  const vectors = await orAborted(
    () => embedTexts(embedder, texts, { urgent, signal: limited }, onRefused),
    limited,
  )
  const embedded = rows.map(({ userId, id, version }, i) => ({
    ...{ userId, id, version, vector: vectors[i] ?? null },
  }))
  return repo.store(db, embedded, { kind, model, holder, extensionSchema })
}

/** A model may not look at the signal. */
async function orAborted<T>(start: () => Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted()
  const work = start()
  // what becomes of it when nobody waits any more concerns nobody
  work.catch(() => {})
  const { promise, reject } = Promise.withResolvers<never>()
  const abort = () => reject(signal.reason)
  signal.addEventListener('abort', abort, { once: true })
  try {
    return await Promise.race([work, promise])
  } finally {
    signal.removeEventListener('abort', abort)
  }
}
