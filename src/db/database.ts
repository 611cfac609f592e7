import { Kysely, sql } from 'kysely'
import type { Logger } from '../core/log.ts'
import { createDialect, type DriverOptions, type SessionSource } from './driver.ts'
import type { Schema } from './schema.ts'
import { schemaPlugin } from './schema-plugin.ts'

export type PoolStats = { open: number; idle: number; waiting: number }

/** The SQL port: one database, whichever engine runs it. */
export type Database = {
  readonly engine: 'postgres' | 'pglite'
  /** What is used, for people; never a credential. */
  readonly description: string
  /** The PostgreSQL schema that holds our tables. */
  readonly schema: string
  readonly db: Kysely<Schema>
  /** How many statements this engine works on at the same time with profit. */
  readonly parallelism: number
  stats(): PoolStats
  /** @throws unavailable when the database does not answer. */
  ping(): Promise<void>
  close(): Promise<void>
}

export type CommonOptions = {
  /** Default `threadbase`. */
  schema?: string
  log: Logger
  /** Default 1000. Slower queries are logged with their name, never their parameters. */
  slowQueryMs?: number
}

export const DEFAULT_SCHEMA = 'threadbase'

export function createDatabase(
  source: SessionSource,
  facts: Pick<Database, 'engine' | 'description' | 'parallelism' | 'stats'>,
  options: CommonOptions & Pick<DriverOptions, 'preparedStatements'>,
): Database {
  const schema = options.schema ?? DEFAULT_SCHEMA
  const dialect = createDialect(source, {
    log: options.log,
    preparedStatements: options.preparedStatements,
    slowQueryMs: options.slowQueryMs ?? 1_000,
  })
  const db = new Kysely<Schema>({ dialect, plugins: [schemaPlugin(schema)] })
  return {
    ...facts,
    schema,
    db,
    ping: async () => {
      await sql`/* ping */ select 1`.execute(db)
    },
    close: () => db.destroy(),
  }
}
