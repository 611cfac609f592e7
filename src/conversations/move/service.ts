import { userOf } from '../../core/scope.ts'
import type { Database } from '../../db/database.ts'
import type { MessageService } from '../../messages/service.ts'
import type { ThreadService } from '../../threads/service.ts'
import type { UsageService, UsageSettings } from '../../usage/service.ts'
import { backUpFolder } from './backup.ts'
import { exportFolder } from './export.ts'
import { migrateFolder, requireConcurrency } from './migrate.ts'
import type {
  BackupOptions,
  BackupReport,
  MoveOptions,
  MoveReport,
  WriteOptions,
  WriteReport,
} from './schema.ts'

export type ConversationMove = ReturnType<typeof createConversationMove>

/**
 * Council conversations and usage between folders of JSON files and the database. For operators: it reads and writes what
 * is any user's. The files of a folder that is read are never changed.
 *
 * Source: council-json-to-postgres, "Migration Script".
 */
export function createConversationMove(
  { db, forUser, parallelism }: Pick<Database, 'db' | 'forUser' | 'parallelism'>,
  slices: { threads: ThreadService; messages: MessageService; usage: UsageService; settings: UsageSettings },
) {
  const parts = { ...slices, db, forUser }
  // one reads and prepares while the database works on the batches of the others
  const usual = parallelism + 2
  const check = ({ userId, concurrency }: { userId?: string; concurrency?: number }): number => {
    if (userId !== undefined) userOf({ userId })
    return requireConcurrency(concurrency, usual)
  }
  return {
    /**
     * Moves the conversations and usage of a folder into the database, each conversation whole or not at all. `dir` is the
     * data directory of a council, the one above it (`data/` in it), or its `conversations/`. It can be repeated, also after
     * a crash: what is there is known, a conversation that has grown in its file gets what is missing, one whose stored
     * messages differ fails and stays as it is. A file that cannot be taken does not stop the others. Memory does not grow
     * with the folder.
     * @throws not_found without the directory; unavailable when the database goes away: run it again
     */
    migrate: async (dir: string, options: MoveOptions = {}): Promise<MoveReport> =>
      migrateFolder(parts, check(options), dir, options),

    /**
     * Writes all council conversations and usage into a folder, each file at once: those that came from one to their places
     * there, all others where the user's are, and else into `conversations/` (user `local`) or `conversations/{user}/`. A
     * file with equal JSON is left; one with other content is refused, unless `force` replaces it. The time of a file is that
     * of its newest message.
     * @throws invalid_input for what is no directory; unavailable when the database goes away
     */
    export: async (dir: string, options: WriteOptions = {}): Promise<WriteReport> =>
      exportFolder(parts, check(options), dir, options),

    /**
     * Packs a folder into a `.tar.gz` beside it that is complete, on the disk, and was compared with the folder file by file
     * (SHA-256) before it gets its name.
     * @throws conflict when files keep changing, or the archive exists; invalid_input for an archive in the folder itself;
     *   not_found without the directory
     */
    backup: (dir: string, options: BackupOptions = {}): Promise<BackupReport> => backUpFolder(dir, options),
  }
}
