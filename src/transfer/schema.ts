import type { NewMessage } from '../messages/schema.ts'

export const IMPORT_FORMATS = ['jsonl', 'chatgpt'] as const
/** `jsonl`: chat JSON Lines, the OpenAI fine-tuning shape. `chatgpt`: the conversations.json of a ChatGPT export. */
export type ImportFormat = (typeof IMPORT_FORMATS)[number]

export const EXPORT_FORMATS = ['jsonl', 'markdown'] as const
export type ExportFormat = (typeof EXPORT_FORMATS)[number]

/** One conversation of a file, as it is going to be stored. */
export type Conversation = {
  /** Line of the file, or element of its array, from 1. */
  n: number
  format: ImportFormat
  /** The same for the same conversation in every run. */
  threadId: string
  title: string | null
  /** Every field of the source except its messages, as they were. */
  line: Record<string, unknown>
  /** Each with the messageId `import:…` and its parent named. */
  messages: NewMessage[]
  /** The messages as the file has them; empty for ChatGPT. */
  source: unknown[]
  /** Undefined when the source does not say. */
  createdAt: Date | undefined
  updatedAt: Date | undefined
}

/** What `meta.import` of an imported thread holds: its source, and where that stood in its file. */
export type ImportMark = {
  format: ImportFormat
  line: Record<string, unknown>
  n?: number
  /** Missing on a thread of an earlier version. */
  done?: ImportExtent
}

/**
 * The messages that the import brings, written before they are: they are all there, or were deleted since, when the
 * thread has reached `seq`.
 */
export type ImportExtent = {
  seq: number
  count: number
  /** Of the first `count` messages of the line; for ChatGPT of each node, one after another. */
  digest: string
}

/** Something of the input that could not be taken, with its place (line or element, from 1). */
export type Refusal = { n: number; reason: string }

/** What an import did, or would do. */
export type ImportReport = {
  format: ImportFormat
  dryRun: boolean
  /** Conversations that were not there before. */
  imported: number
  /** Conversations that were there already, in whole; nothing changed. */
  known: number
  /** Conversations that were there and got more messages, or newer fields. */
  extended: number
  refused: number
  /** Messages that were stored (would be, in a dry run). */
  messages: number
  /** Bytes of the input that were read. */
  bytes: number
  /** The first refusals in the order of the file, {@link KEPT_REFUSALS} at most. */
  refusals: Refusal[]
}

export const KEPT_REFUSALS = 100

export type ImportOptions = {
  /** Default: found out from the content. */
  format?: ImportFormat
  /** Read, check and compare, but write nothing. */
  dryRun?: boolean
  /** Called often with the report so far: must be quick. */
  onProgress?: (report: Readonly<ImportReport>) => void
  /** Called for every refusal, also for those that the report does not keep. */
  onRefused?: (refusal: Refusal) => void
  /** Stops reading; what is under way is finished and reported. */
  signal?: AbortSignal
}

export type ExportOptions = {
  /** Default: all threads of the user, archived ones too, oldest first. */
  threadId?: string
  /** Default `jsonl`. */
  format?: ExportFormat
  /** Called after each thread with the numbers so far. */
  onProgress?: (counts: { threads: number; messages: number }) => void
}
