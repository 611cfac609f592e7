import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Db } from '../../db/schema.ts'
import * as repo from './repo.ts'
import type { ExportedTable } from './tables.ts'

/** The rows of a table, a page at a time. */
export async function* pagesOf(
  db: Db,
  table: ExportedTable,
  userId: string,
  toLine: (row: repo.ExportedRow) => unknown,
): AsyncGenerator<unknown[]> {
  let after: string[] | undefined
  do {
    const { rows, last } = await repo.readRows(db, table, userId, after)
    after = last
    if (rows.length > 0) yield rows.map(toLine)
    // what others wait for comes in between
    await nextTurn()
  } while (after !== undefined)
}
