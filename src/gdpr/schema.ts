/** What an erasure did, or would do. */
export type ErasureCount = {
  /** How many rows of each table, by its name; tables without any are left out. */
  rows: Record<string, number>
  /** Of stored bytes that nobody else names: how many, and how large together. */
  blobs: number
  blobBytes: number
}

export type ErasureReport = ErasureCount & {
  userId: string
  /** When it began, for the first time. Nothing of the user is stored since. */
  erasedAt: Date
  /** When nothing was left. */
  finishedAt: Date
  /** Whether an earlier erasure had finished: this one found what it found. */
  wasErased: boolean
  /** Stored bytes that nobody names and somebody stored again meanwhile: `threadbase blobs gc` removes them. */
  blobsLeft: number
}

/** A user whose data was erased. */
export type Tombstone = {
  userId: string
  erasedAt: Date
  /** Null while something may be left: erase again. */
  finishedAt: Date | null
}
