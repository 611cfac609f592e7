import { ThreadbaseError } from '../core/errors.ts'
import { type CommonOptions, createDatabase, type Database } from './database.ts'

/**
 * The SQL port where there is no database: what needs one fails at its first statement and says why.
 * @param description of what is used instead
 * @param reason why there is none, as a sentence for people
 */
export function absentDatabase(
  description: string,
  reason: string,
  options: Pick<CommonOptions, 'schema' | 'log'>,
): Database {
  const refuse = async (): Promise<never> => {
    throw new ThreadbaseError('unavailable', reason)
  }
  const source = { shared: false, acquire: refuse, release: () => {}, close: async () => {} }
  const stats = () => ({ open: 0, idle: 0, waiting: 0 })
  return createDatabase(
    source,
    { engine: 'none', description, parallelism: 1, stats },
    { ...options, preparedStatements: false, queryTimeoutMs: undefined },
  )
}
