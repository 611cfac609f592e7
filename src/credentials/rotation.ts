import { setTimeout as delay } from 'node:timers/promises'
import type { KeyRing } from '../core/key-ring.ts'
import type { Database } from '../db/database.ts'
import { countByKey, type EncryptedTable, type RowProblem, reencryptBatch } from '../db/encrypted-rows.ts'

/** How many rows of a table are under a key. */
export type TableKey = {
  table: string
  /** Null: rows that name no key, and that none of the keys opens. */
  keyId: string | null
  rows: number
  /** `first`: the key that encrypts. `ring`: one that decrypts. `missing`: it is not among the keys. */
  is: 'first' | 'ring' | 'missing'
}

/** A row that its own key does not open. */
export type DamagedRow = { table: string; key: string[]; keyId: string | null; problem: RowProblem }

export type Rotation = {
  /** Rows that were, or in a dry run would be, encrypted with the first key. */
  reencrypted: number
  /** All keys that rows are under, at the end. */
  counts: TableKey[]
  /** Rows that none of the keys opens, or not the key that they name; those of checkpoints with a missing key are not looked at. */
  refused: number
  /** The first of those whose key is there: they were changed. */
  damaged: DamagedRow[]
  /** Rows that are still under another key of the ring, though it opens them: somebody holds them, or still writes with it. */
  left: number
}

export type RotationOptions = {
  /** Rows in a transaction, at most. Default 200. */
  batch?: number
  /** Reads and decrypts everything and changes nothing. */
  dryRun?: boolean
  /** Ends after the batch that is under way. */
  signal?: AbortSignal
  /** So many rows are done, of about so many. */
  onProgress?: (done: number, of: number) => void
}

const BATCH = 200
const MAX_PASSES = 5
const MAX_DAMAGED = 20

type Db = Pick<Database, 'db'>

/**
 * Encrypts with the first key of a ring what is under another one, while others read and write. Each batch is a
 * transaction: what is done stays done, whenever it ends, and a second call goes on with what is left. Two may run at
 * the same time.
 */
export async function rotateKeys(
  database: Db,
  tables: readonly EncryptedTable[],
  ring: KeyRing,
  { onProgress = () => {}, ...options }: RotationOptions = {},
): Promise<Rotation> {
  const before = await countKeys(database, tables, ring)
  const total = before.filter(isOld).reduce((sum, { rows }) => sum + rows, 0)
  const rotation: Rotation = { reencrypted: 0, counts: before, refused: 0, damaged: [], left: total }
  const tell = (rows: number) => {
    rotation.reencrypted += rows
    onProgress(rotation.reencrypted, Math.max(total, rotation.reencrypted))
  }
  // what a batch leaves out because somebody holds it, and what comes in behind it, is for the next pass
  for (let pass = 1; pass <= MAX_PASSES; pass++) {
    const refused = createRefused()
    for (const table of tables) await walk(database, table, ring, options, { tell, refused })
    rotation.refused = refused.total()
    rotation.damaged = refused.damaged
    rotation.counts = options.dryRun ? before : await countKeys(database, tables, ring)
    rotation.left = rotation.counts.filter(isOld).reduce((sum, count) => sum + refused.without(count), 0)
    if (rotation.left === 0 || options.dryRun || options.signal?.aborted) break
    await delay(100 * pass)
  }
  return rotation
}

/** Whether keys of the ring may open the rows, and the first one is not theirs. */
const isOld = ({ is, keyId }: TableKey) => is === 'ring' || keyId === null

type Pass = { tell: (rows: number) => void; refused: Refused }

async function walk(
  { db }: Db,
  table: EncryptedTable,
  ring: KeyRing,
  { batch = BATCH, dryRun = false, signal }: RotationOptions,
  { tell, refused }: Pass,
): Promise<void> {
  const keyIds = ring.map(({ id }) => id) as [string, ...string[]]
  let after: string[] | undefined
  do {
    if (signal?.aborted) return
    const done = await reencryptBatch(db, table, { keyIds, after, limit: batch, dryRun })
    for (const row of done.refused) refused.add({ table: table.name, ...row })
    tell(done.done)
    after = done.next
  } while (after !== undefined)
}

type Refused = ReturnType<typeof createRefused>

/** The rows that a pass could not open: how many under which key, and the first that are damaged. */
function createRefused() {
  const damaged: DamagedRow[] = []
  const counts = new Map<string, number>()
  let total = 0
  return {
    damaged,
    total: () => total,
    add(row: DamagedRow): void {
      total++
      const place = placeOf(row)
      counts.set(place, (counts.get(place) ?? 0) + 1)
      if (row.problem !== 'missing key' && damaged.length < MAX_DAMAGED) damaged.push(row)
    },
    /** How many of the rows that were counted are others. */
    without: (count: TableKey): number => Math.max(0, count.rows - (counts.get(placeOf(count)) ?? 0)),
  }
}

const placeOf = ({ table, keyId }: { table: string; keyId: string | null }) => JSON.stringify([table, keyId])

/** How many rows of each table are under which key: those of the ring in its order, then those that are missing. */
export async function countKeys(
  { db }: Db,
  tables: readonly EncryptedTable[],
  ring: readonly { id: string }[],
): Promise<TableKey[]> {
  const place = new Map<string | null, number>(ring.map(({ id }, i) => [id, i]))
  const placeOf = (keyId: string | null) => place.get(keyId) ?? ring.length
  const isOf = (at: number) => (at === ring.length ? 'missing' : at === 0 ? 'first' : 'ring')
  const all: TableKey[] = []
  for (const table of tables) {
    const counts = await countByKey(db, table)
    for (const { keyId, rows } of counts.toSorted((a, b) => placeOf(a.keyId) - placeOf(b.keyId))) {
      const at = placeOf(keyId)
      all.push({ table: table.name, keyId, rows, is: isOf(at) })
    }
  }
  return all
}
