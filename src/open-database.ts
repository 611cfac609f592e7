import { resolve } from 'node:path'
import type { Config } from './config.ts'
import type { Logger } from './core/log.ts'
import { absentDatabase } from './db/absent.ts'
import type { Database } from './db/database.ts'
import { openPglite } from './db/pglite.ts'
import { openPostgres } from './db/postgres.ts'
import type { StatementTrace } from './db/statements.ts'

/** The database of a configuration, as it is: not migrated. */
export async function openDatabase(config: Config, log: Logger, trace?: StatementTrace): Promise<Database> {
  const { databaseSchema: schema, rls, appRole } = config
  const common = { schema, rls, appRole, log, trace }
  if (config.jsonDir !== undefined) return noDatabase(config.jsonDir, log)
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

function noDatabase(dir: string, log: Logger): Database {
  const reason =
    'this needs a database: with a DATABASE_URL of json: there are conversations of councils and their usage only'
  return absentDatabase(`JSON files in ${resolve(dir)}, for conversations and usage only`, reason, { log })
}
