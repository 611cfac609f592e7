import type { Config } from './config.ts'
import type { Logger } from './core/log.ts'
import type { Database } from './db/database.ts'
import { openPglite } from './db/pglite.ts'
import { openPostgres } from './db/postgres.ts'
import type { StatementTrace } from './db/statements.ts'

/** The database of a configuration, as it is: not migrated. */
export function openDatabase(config: Config, log: Logger, trace?: StatementTrace): Promise<Database> {
  const { databaseSchema: schema, rls, appRole } = config
  const common = { schema, rls, appRole, log, trace }
  if (config.databaseUrl === undefined) return openPglite({ ...common, dataDir: config.dataDir })
  const { databaseUrl: url, poolSize, maxOverflow, idleTimeoutS, startTimeoutS } = config
  const { queryTimeoutS, preparedStatements } = config
  return openPostgres({
    ...common,
    url,
    poolSize,
    maxOverflow,
    idleTimeoutS,
    startTimeoutS,
    queryTimeoutS,
    preparedStatements,
  })
}
