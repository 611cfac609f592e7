import { VERSION } from '../../version.ts'
import { COLUMNS_LEFT_OUT, LEFT_OUT } from './tables.ts'

export const FORMAT = 'threadbase-user-export'
/** Grows when a reader of the earlier format would go wrong. */
export const FORMAT_VERSION = 1

/** A file of the archive; `records`: its lines. */
export type FileFacts = { path: string; records?: number; bytes: number; sha256: string }
/** Bytes that a row names and that are not in the archive, or are others. */
export type MissingBytes = {
  table: string
  id: string
  path?: string
  sha256?: string
  size?: number
  reason: string
}

export type ManifestInput = {
  userId: string
  startedAt: Date
  snapshot: boolean
  files: FileFacts[]
  missing: MissingBytes[]
}

/** manifest.json: what is in the archive, and what is not. */
export function manifestOf({ userId, startedAt, snapshot, files, missing }: ManifestInput): string {
  const manifest = {
    format: FORMAT,
    version: FORMAT_VERSION,
    user_id: userId,
    started_at: startedAt,
    finished_at: new Date(),
    threadbase: VERSION,
    consistency: snapshot
      ? 'snapshot: all rows are as they were at one moment; secrets and bytes were read before and after it'
      : 'pages: what was changed during the export is in it or not, page by page',
    files,
    missing,
    left_out: { tables: LEFT_OUT, columns: COLUMNS_LEFT_OUT },
  }
  return `${JSON.stringify(manifest, null, 2)}\n`
}

export const readmeOf = (
  userId: string,
  startedAt: Date,
) => `Everything that this installation of Threadbase keeps of user ${JSON.stringify(userId)}
Exported ${startedAt.toISOString()}

manifest.json           what is in this archive with counts and SHA-256, what is missing, and what was left out and why
account.json            the account, without its password; null for users without one

Files that end in .jsonl have one JSON document a line (https://jsonlines.org). Times are in UTC.

threads.jsonl           threads: conversations, councils, sessions
messages.jsonl          their messages, in order; parent_seq is the seq of the message that one follows
configs.jsonl           model, prompt and settings of threads
analyses.jsonl          what sessions came to; analysis_versions.jsonl: what they said before they were changed
council_turns.jsonl     answers of councils that are being made
store.jsonl             long-term memory: items by namespace and key
checkpoints.jsonl       the state of LangGraph threads: metadata, versions, and for each channel its value or the hash of it
checkpoint_values.jsonl the values by hash: "value", or "parts", the hashes of what it is made of in order. A value with
                        "is_several" is a list of so many elements. What is no JSON is in "base64".
checkpoint_writes.jsonl writes of tasks whose step had not ended
artifacts.jsonl         files of threads; "path" is where the bytes are in this archive. Equal bytes are in it once.
files.jsonl             files outside threads, in the same way
uploads.jsonl           uploads that were announced and not completed
provider_keys.jsonl     keys for providers of models, masked
variables.jsonl         variables: the value of generic ones, of credentials the mask alone
usage.jsonl             counters and limits
sessions.jsonl          sign-ins
api_keys.jsonl          API keys, without the keys themselves
audit_log.jsonl         who did what to the account and to what is in it
`
