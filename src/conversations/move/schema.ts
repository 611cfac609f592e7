import type { TextPosition } from '../../core/json-position.ts'

/**
 * Where a file of a conversation is below the data directory: `flat` conversations/{id}.json, `nested`
 * conversations/{user}/{id}.json, `user` {user}/{id}.json.
 */
export type Place = 'flat' | 'nested' | 'user'

export type MoveStatus = 'moved' | 'extended' | 'known' | 'skipped' | 'failed'

/** What became of one file; in a dry run, what would. */
export type MoveLine = {
  /** Below the directory that is moved, with slashes. A directory that is skipped as a whole ends with one. */
  file: string
  kind: 'conversation' | 'usage' | 'other'
  /**
   * `moved`: what it holds was not there before. `extended`: the conversation was, and got newer messages or fields.
   * `known`: it was there in whole. `skipped`: it is none of ours. `failed`: nothing of it was stored.
   */
  status: MoveStatus
  userId?: string
  /** Of the conversation. */
  id?: string
  /** How many messages were added. */
  messages?: number
  /** Why it was skipped or failed, or what else there is to know. */
  reason?: string
  /** Where the file stops being JSON. */
  at?: TextPosition
  /** Another file of the same conversation. */
  other?: string
}

type Counts = Record<MoveStatus, number>

/** How far a move is, or what it did. */
export type MoveReport = {
  /** The directory that was read, which may be one below the one that was named. */
  dir: string
  dryRun: boolean
  /** Files that may hold conversations or usage, counted before. */
  files: number
  /** How many of those were dealt with. */
  done: number
  conversations: Counts
  usage: Counts
  /** Other files, and directories: skipped, or failed because they cannot be read. */
  others: Counts
  /** Messages that were added. */
  messages: number
  /** Bytes of the files that were read. */
  bytes: number
}

export type MoveOptions = {
  /** Only what is this user's. Files in `conversations/` that name no user are, too. Default: all users. */
  userId?: string
  /** Read and compare everything, store nothing. */
  dryRun?: boolean
  /** How many batches are read and stored at the same time, 1 to 64. Default: what the database works on with profit. */
  concurrency?: number
  /** Called for every file, in no order: must be quick. */
  onFile?: (line: MoveLine) => void
  /** Called often with the report so far: must be quick. */
  onProgress?: (report: Readonly<MoveReport>) => void
  /** Stops reading; what is under way is stored and reported. */
  signal?: AbortSignal
}

export type WriteStatus = 'written' | 'equal' | 'failed'

/** What became of one conversation or one user's usage on its way into a folder. */
export type WriteLine = {
  /** Below the directory, with slashes; where it would be for one that failed. */
  file: string
  kind: 'conversation' | 'usage'
  /** `written`: the file is new, or was replaced. `equal`: it was there with equal content. `failed`: it is as it was. */
  status: WriteStatus
  userId: string
  id?: string
  reason?: string
}

export type WriteReport = {
  dir: string
  /** Conversations, counted before. */
  total: number
  conversations: Record<WriteStatus, number>
  usage: Record<WriteStatus, number>
  /** In the files that were written. */
  messages: number
}

export type WriteOptions = {
  /** Only what is this user's. Default: all users. */
  userId?: string
  /** Replace files with other content. */
  force?: boolean
  /** How many conversations are read at the same time, 1 to 64. Default: what the database works on with profit. */
  concurrency?: number
  onFile?: (line: WriteLine) => void
  onProgress?: (report: Readonly<WriteReport>) => void
  /** Stops behind the files under way. */
  signal?: AbortSignal
}

export type BackupOptions = {
  /** Or a directory to make it in. Default: beside the folder, named after it and the time (UTC). */
  file?: string
  /** Called often with what was verified so far: must be quick. */
  onProgress?: (counted: { files: number; bytes: number }) => void
  /** Called when the archive is made again, with the reason. */
  onRetry?: (reason: string) => void
  signal?: AbortSignal
}

/** Files in the archive, their bytes, and those of the archive itself. */
export type BackupReport = { file: string; files: number; bytes: number; archiveBytes: number }

/** `meta.council_file` of a thread that came from a file: what the file alone says. */
export type FileMark = {
  place: Place
  /** The digest of all that the file said beside its messages. */
  head: string
  /** What the document said, when that was not the name of its file; null: nothing. */
  id?: { is: unknown } | null
}
