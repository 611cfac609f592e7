import { setTimeout as delay } from 'node:timers/promises'
import { isThreadbaseError, ThreadbaseError } from '../../core/errors.ts'
import type { Logger } from '../../core/log.ts'
import type { Database } from '../../db/database.ts'
import type { Db } from '../../db/schema.ts'
import * as repo from './repo.ts'

export type { WordState } from './repo.ts'

/**
 * Makes the language of a configuration the one that words are taken with; without one it stays.
 * @param options.change whether the schema may be changed; else a difference is logged
 * @throws invalid_input when the database has no such language
 */
export async function prepareLanguage(
  database: Pick<Database, 'db' | 'schema'>,
  { language: name, change }: { language: string | undefined; change: boolean },
  log: Logger,
): Promise<void> {
  const { db, schema } = database
  const language = name === undefined ? undefined : await repo.findLanguage(db, name)
  if (name !== undefined && language === undefined) throw await unknownLanguage(db, name)
  const isOther = language !== undefined && !language.isCurrent
  if (isOther && change) await db.transaction().execute((tx) => repo.setLanguage(tx, schema, language))
  const state = await repo.readState(db)
  if (isOther && !change)
    log.warn(
      { language: state.language, wanted: name },
      'SEARCH_LANGUAGE is another than that of the database, which stays: run `threadbase db upgrade`',
    )
  if (state.others.length > 0)
    log.warn(
      state,
      'messages may have their words of another language: run `threadbase search reindex` so that they are found',
    )
}

async function unknownLanguage(db: Db, name: string): Promise<ThreadbaseError> {
  const known = (await repo.listLanguages(db)).join(', ')
  return new ThreadbaseError(
    'invalid_input',
    `SEARCH_LANGUAGE must be a text search configuration of the database, not ${name}; it has: ${known}`,
    { variable: 'SEARCH_LANGUAGE' },
  )
}

/** What words are made with, and what else rows may have their words of. */
export function readWordState({ db }: Pick<Database, 'db'>): Promise<repo.WordState> {
  return repo.readState(db)
}

export type ReindexReport = {
  /** Rows that were looked at. */
  rows: number
  /** Those whose words were others. */
  changed: number
}

export type ReindexOptions = {
  /** Asks it to stop after the batch that is under way. */
  signal?: AbortSignal
  /** @param about how many rows there are */
  onProgress?: (report: ReindexReport, about: number) => void
  /** Rows a statement. Default 500. */
  batch?: number
}

const ATTEMPTS = 5

/**
 * Makes the words of all rows anew where they are not those of the language in use. Appends go on meanwhile; it can be
 * repeated, and rows that are right are left alone.
 */
export async function reindexWords(
  database: Pick<Database, 'db' | 'schema'>,
  { signal, onProgress, batch = 500 }: ReindexOptions = {},
): Promise<ReindexReport> {
  const { db, schema } = database
  const started = await repo.readClock(db)
  const { language } = await repo.readState(db)
  const about = await repo.countRows(db, schema)
  const report: ReindexReport = { rows: 0, changed: 0 }
  for (const remake of [repo.remakeWords, repo.remakeAnalysisWords]) {
    let after: repo.RowKey | undefined
    do {
      if (signal?.aborted) return report
      const { seen, changed, last } = await again(() => remake(db, after, batch))
      report.rows += seen
      report.changed += changed
      onProgress?.(report, about)
      after = last
    } while (after !== undefined)
  }
  await repo.forgetOthers(db, language, started)
  return report
}

/** A batch collides with who deletes the same rows in another order. */
async function again<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work()
    } catch (error) {
      if (attempt === ATTEMPTS || !isThreadbaseError(error, 'unavailable')) throw error
      await delay(100 * attempt)
    }
  }
}
