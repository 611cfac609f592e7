import type { AppendBatch } from './append-queue.ts'
import type { AppendOutcome, AppendRow } from './repo.ts'

/** The rows of one user within a batch, in its order. */
export type UserRows = { userId: string; rows: AppendRow[] }

/** Stores the rows of several users, all or none; outcomes for each user, in order. */
type AppendParts = (parts: UserRows[]) => Promise<AppendOutcome[][]>

type Part = UserRows & { /** Where its rows are in the batch. */ places: number[] }

/**
 * A batch in parts of one user each, which is what row level security lets a statement write. The parts come in the
 * order in which the database sorts users, as do the threads within a part: so all lock threads in the same order,
 * servers that write with row level security and those without.
 */
export function appendByUser(append: AppendParts): AppendBatch {
  return async (rows) => {
    const parts = split(rows)
    const results = await append(parts.map(({ userId, rows }) => ({ userId, rows })))
    const outcomes: AppendOutcome[] = new Array(rows.length)
    for (const [p, { places }] of parts.entries())
      for (const [i, place] of places.entries()) outcomes[place] = results[p]?.[i] as AppendOutcome
    return outcomes
  }
}

function split(rows: AppendRow[]): Part[] {
  const parts = new Map<string, Part>()
  // where each row is in its part
  const placeInPart: number[] = []
  for (const [place, row] of rows.entries()) {
    const { userId, parentN } = row
    let part = parts.get(userId)
    if (part === undefined) {
      part = { userId, rows: [], places: [] }
      parts.set(userId, part)
    }
    placeInPart.push(part.places.push(place))
    // a parent comes before its children and is of the same call
    const parent = parentN === null ? null : (placeInPart[parentN - 1] as number)
    part.rows.push({ ...row, parentN: parent })
  }
  return [...parts.values()].sort((a, b) => compareBytes(a.userId, b.userId))
}

/** As `collate "C"` has it, which is not the order of UTF-16. */
function compareBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b))
}
