import type { Logger } from '../core/log.ts'
import type { Database } from '../db/database.ts'
import { prepareLanguage } from './language/service.ts'
import { prepareTrigrams } from './trigrams/service.ts'

/**
 * Makes ready what search by words needs beyond the migrations: its language, and an extension for typing errors.
 * @param options.language undefined: it stays as it is
 * @param options.change whether the schema may be changed
 * @throws invalid_input for a language that the database does not have
 */
export async function prepareSearch(
  database: Pick<Database, 'db' | 'schema' | 'engine'>,
  options: { language: string | undefined; change: boolean },
  log: Logger,
): Promise<void> {
  if (database.engine === 'none') return
  await prepareLanguage(database, options, log)
  if (options.change) await prepareTrigrams(database, log)
}
