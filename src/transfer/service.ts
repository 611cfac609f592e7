import { ThreadbaseError } from '../core/errors.ts'
import { type Scope, userOf } from '../core/scope.ts'
import type { Database } from '../db/database.ts'
import type { MessageService } from '../messages/service.ts'
import type { ThreadService } from '../threads/service.ts'
import { exportText } from './export.ts'
import { runImport } from './import.ts'
import {
  EXPORT_FORMATS,
  type ExportOptions,
  IMPORT_FORMATS,
  type ImportOptions,
  type ImportReport,
} from './schema.ts'

export type TransferService = ReturnType<typeof createTransferService>

/**
 * Conversations in and out of files.
 * @param options.lanes how many batches an import may have under way at the same time
 */
export function createTransferService(
  { forUser }: Pick<Database, 'forUser'>,
  { threads, messages, lanes }: { threads: ThreadService; messages: MessageService; lanes: number },
) {
  const slices = { forUser, threads, messages }
  return {
    /**
     * Imports chat JSON Lines (the OpenAI fine-tuning shape) or ChatGPT's conversations.json, plain or gzip, from any
     * source of bytes, with bounded memory. What cannot be taken is reported with its place and reason, and the rest
     * goes on. Ids come from the content: an import can be repeated, after an interruption too, and stores each
     * message once.
     * @throws unsupported for a zip archive or UTF-16; invalid_input for another kind of file; unavailable when the
     *   database goes away: repeat the import
     */
    async import(
      scope: Scope,
      source: AsyncIterable<Uint8Array>,
      options: ImportOptions = {},
    ): Promise<ImportReport> {
      userOf(scope)
      requireOneOf('format', options.format, IMPORT_FORMATS)
      return runImport(slices, lanes, scope, source, options)
    },

    /**
     * The user's threads, archived ones too, oldest first (those of one import in the order of its file), as text in pieces: JSON Lines as the import takes them, or
     * Markdown. Of a thread with branches: the path to its newest message. A line that was imported comes back as
     * equal JSON.
     * @throws not_found without the thread that `threadId` names
     */
    export(scope: Scope, options: ExportOptions = {}): AsyncGenerator<string> {
      userOf(scope)
      requireOneOf('format', options.format, EXPORT_FORMATS)
      return exportText(slices, scope, options)
    },
  }
}

function requireOneOf(field: string, value: string | undefined, allowed: readonly string[]): void {
  if (value === undefined || allowed.includes(value)) return
  throw new ThreadbaseError('invalid_input', `${field} must be one of: ${allowed.join(', ')}`, { field })
}
