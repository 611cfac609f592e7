import * as models from './models/repo.ts'
import type { Kind } from './repo.ts'
import * as repo from './repo.ts'
import { type Round, type RoundParts, runRound } from './rounds.ts'

/** Goes through all that waits, batch by batch. */
export type Worker = {
  /** Rows of this kind may wait. */
  due(kind: Kind): void
  /** All may be different: it is looked for everything again. */
  startOver(): void
  /**
   * Embeds the next batch. @returns undefined when nothing is left, so far as this process knows
   * @throws unavailable; what the database says without the column
   */
  next(options: NextOptions): Promise<Round | undefined>
}

export type NextOptions = { extensionSchema: string; limit?: number; urgent: boolean; signal: AbortSignal }

const KINDS = ['analysis', 'message'] as const
/** How often it is looked for embeddings of older models. */
const OLDER_EVERY_MS = 60_000
const RESET_ROWS = 1_000

export function createWorker(parts: RoundParts): Worker {
  const { db, embedder, log } = parts
  const due = new Set<Kind>(KINDS)
  let older: { kind: Kind; model: string }[] = []
  let lost: Kind[] = []
  let lookAt = 0
  let chosen = false

  async function lookForOlder(): Promise<void> {
    if (older.length > 0 || lost.length > 0 || performance.now() < lookAt) return
    lookAt = performance.now() + OLDER_EVERY_MS
    const lists = await Promise.all(KINDS.map((kind) => models.listOlderModels(db, kind, embedder.model)))
    older = KINDS.flatMap((kind, i) => (lists[i] ?? []).map((model) => ({ kind, model })))
    lost = (await models.isLost(db, embedder.model)) ? [...KINDS] : []
    await repo.sweepClaims(db)
  }

  async function choose(): Promise<void> {
    const before = await models.findNewest(db)
    await models.chooseModel(db, embedder.model)
    if (before !== undefined && before !== embedder.model)
      log.warn(
        { model: embedder.model, before },
        'the embeddings of another model are made again by this one',
      )
  }

  /** Makes rows wait again whose embeddings went away with their column. */
  async function resetLost(): Promise<Round | undefined> {
    for (let [kind] = lost; kind !== undefined; [kind] = lost) {
      const reset = (locked: 'skip' | 'wait') =>
        models.resetLost(db, kind as Kind, embedder.model, { limit: RESET_ROWS, locked })
      const taken = (await reset('skip')) || (await reset('wait'))
      due.add(kind)
      if (taken > 0) return { taken, stored: 0, contended: false }
      lost.shift()
      if (lost.length === 0) await models.clearLost(db, embedder.model)
    }
    return undefined
  }

  async function takeDue(options: NextOptions): Promise<Round | undefined> {
    for (const kind of KINDS) {
      // before the statement: what is due while it runs is due again
      if (!due.delete(kind)) continue
      const round = await runRound(parts, { ...options, kind, of: null }).catch((error) => {
        due.add(kind)
        throw error
      })
      if (round.taken === 0 && !round.contended) continue
      due.add(kind)
      return round
    }
    return undefined
  }

  async function takeOlder(options: NextOptions): Promise<Round | undefined> {
    for (let [first] = older; first !== undefined; [first] = older) {
      const round = await runRound(parts, { ...options, kind: first.kind, of: first.model })
      if (round.taken > 0 || round.contended) return round
      older.shift()
    }
    return undefined
  }

  return {
    due: (kind) => void due.add(kind),
    startOver() {
      for (const kind of KINDS) due.add(kind)
      lookAt = 0
    },
    async next(options) {
      if (!chosen) await choose()
      chosen = true
      // all of them first: those that turn out to be empty again must not be found again
      const round = (await resetLost()) ?? (await takeDue(options))
      if (round !== undefined) return round
      await lookForOlder()
      return (await resetLost()) ?? (await takeOlder(options))
    },
  }
}
