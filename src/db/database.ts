import { Kysely, sql } from 'kysely'
import { ThreadbaseError } from '../core/errors.ts'
import type { Logger } from '../core/log.ts'
import { createDialect, type DriverOptions, type SessionSource, type StatementTrace } from './driver.ts'
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
  /**
   * Lets running statements finish, on PostgreSQL for some seconds at most (`closeGraceS`); later ones, and callers that
   * wait for a connection, are `unavailable`. Again: no change.
   */
  close(): Promise<void>
}

export type CommonOptions = {
  /** Default `threadbase`. */
  schema?: string
  log: Logger
  /** Default 1000. Slower queries are logged with their name, never their parameters. */
  slowQueryMs?: number
  /** Told of every statement, for traces. Default: nobody is. */
  trace?: StatementTrace
}

export const DEFAULT_SCHEMA = 'threadbase'

/** @internal Its types are those of the driver, which users of the package do not have. */
export function createDatabase(
  source: SessionSource,
  facts: Pick<Database, 'engine' | 'description' | 'parallelism' | 'stats'>,
  options: CommonOptions & Pick<DriverOptions, 'preparedStatements' | 'queryTimeoutMs'>,
): Database {
  const schema = options.schema ?? DEFAULT_SCHEMA
  let closing: Promise<void> | undefined
  const open: SessionSource = {
    ...source,
    acquire: async () => {
      if (closing !== undefined) throw new ThreadbaseError('unavailable', 'the database is closed')
      return source.acquire()
    },
  }
  const dialect = createDialect(open, {
    log: options.log,
    preparedStatements: options.preparedStatements,
    queryTimeoutMs: options.queryTimeoutMs,
    slowQueryMs: options.slowQueryMs ?? 1_000,
    trace: options.trace,
  })
  const db = new Kysely<Schema>({ dialect, plugins: [schemaPlugin(schema)] })
  return {
    ...facts,
    schema,
    db,
    ping: async () => {
      await sql`/* ping */ select 1`.execute(db)
    },
    // not through Kysely, which then answers late callers with an error of its own
    close: () => {
      closing ??= source.close()
      return closing
    },
  }
}
