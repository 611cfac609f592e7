import type { Logger } from '../../core/log.ts'
import type { Database } from '../../db/database.ts'
import type { Trigrams } from '../text/repo.ts'
import * as repo from './repo.ts'

const KNOWN_FOR_MS = 60_000

/** Creates the extension pg_trgm where it may; without it search finds no typing errors, and the log says so. */
export async function prepareTrigrams({ db }: Pick<Database, 'db'>, log: Logger): Promise<void> {
  const { created, available } = await repo.findTrigrams(db)
  if (created !== undefined) return
  const without = 'search does not find what is spelt a little otherwise'
  if (!available) return log.info({}, `the database has no extension pg_trgm: ${without}`)
  try {
    await db.transaction().execute((tx) => repo.createTrigrams(tx))
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    log.info(
      { reason, sql: 'create extension pg_trgm' },
      `the extension pg_trgm cannot be created: ${without}`,
    )
  }
}

/** Where the extension is, asked anew now and then; undefined without it. */
export function createTrigramFinder({ db }: Pick<Database, 'db'>): () => Promise<Trigrams | undefined> {
  let known: { trigrams: Promise<Trigrams | undefined>; until: number } | undefined
  return async () => {
    const now = performance.now()
    if (known === undefined || known.until <= now) {
      const trigrams = repo.findTrigrams(db).then(({ created }) => created)
      const mine = { trigrams, until: now + KNOWN_FOR_MS }
      known = mine
      trigrams.catch(() => {
        if (known === mine) known = undefined
      })
    }
    return known.trigrams
  }
}
