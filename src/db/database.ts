import { Kysely, type QueryResult, sql } from 'kysely'
import { ThreadbaseError } from '../core/errors.ts'
import type { Logger } from '../core/log.ts'
import { setNewest } from '../core/newest.ts'
import { createDialects, type DriverOptions, type SessionSource } from './driver.ts'
import type { Schema } from './schema.ts'
import { schemaPlugin } from './schema-plugin.ts'
import type { StatementTrace, UserQuery } from './statements.ts'

export type PoolStats = { open: number; idle: number; waiting: number }

export type RlsMode = 'off' | 'enforce'

/** The SQL port: one database, whichever engine runs it. */
export type Database = {
  /** `none`: there is no database, and every statement is `unavailable`. */
  readonly engine: 'postgres' | 'pglite' | 'none'
  /** What is used, for people; never a credential. */
  readonly description: string
  /** The PostgreSQL schema that holds our tables. */
  readonly schema: string
  /** The system's own handle, which sees all rows: for migrations, sign-in and administration. */
  readonly db: Kysely<Schema>
  readonly rls: RlsMode
  /** The role of users' statements under `enforce`, and of nothing when `off`. */
  readonly appRole: string
  /**
   * The handle for a user's rows. Under `enforce` its statements and transactions run as `appRole` with the setting
   * `threadbase.user_id`, so that row level security keeps them from all other rows; when `off` it is `db`.
   */
  forUser(userId: string): Kysely<Schema>
  /**
   * Runs one statement for each of several users, as {@link forUser} would, but together: all or none, and under
   * `enforce` in one round trip. Every query must have the same text; values differ. Locks are taken in the order of
   * the calls.
   * @returns a result for each, in order
   */
  forUsers<R>(calls: readonly UserQuery<R>[]): Promise<QueryResult<R>[]>
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
  /** Whether users' statements run under a role that row level security binds. Default `off`. */
  rls?: RlsMode
  /** That role. Default `threadbase_app`. */
  appRole?: string
  /** Told of every statement, for traces. Default: nobody is. */
  trace?: StatementTrace
}

export const DEFAULT_SCHEMA = 'threadbase'
export const DEFAULT_APP_ROLE = 'threadbase_app'

// handles are cheap to make and to keep; this bounds what millions of users leave behind
const MAX_HANDLES = 1_000

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
  const { rls = 'off', appRole = DEFAULT_APP_ROLE } = options
  const dialects = createDialects(open, {
    log: options.log,
    preparedStatements: options.preparedStatements,
    queryTimeoutMs: options.queryTimeoutMs,
    slowQueryMs: options.slowQueryMs ?? 1_000,
    appRole: rls === 'enforce' ? appRole : undefined,
    trace: options.trace,
  })
  const plugins = [schemaPlugin(schema)]
  const handleOf = (userId?: string) => new Kysely<Schema>({ dialect: dialects.of(userId), plugins })
  const db = handleOf()
  return {
    ...facts,
    schema,
    db,
    rls,
    appRole,
    forUser: rls === 'enforce' ? keepNewest(handleOf) : () => db,
    forUsers: (calls) => (rls === 'enforce' ? dialects.runForUsers(appRole, calls) : runTogether(db, calls)),
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

function runTogether<R>(db: Kysely<Schema>, calls: readonly UserQuery<R>[]): Promise<QueryResult<R>[]> {
  return db.transaction().execute(async (tx) => {
    const results: QueryResult<R>[] = []
    for (const { query } of calls) results.push(await tx.executeQuery(query))
    return results
  })
}

/** Keeps the handles used last. A transaction holds on to its own, whatever is forgotten here. */
function keepNewest(handleOf: (userId: string) => Kysely<Schema>): Database['forUser'] {
  const handles = new Map<string, Kysely<Schema>>()
  return (userId) => {
    const handle = handles.get(userId) ?? handleOf(userId)
    setNewest(handles, userId, handle, MAX_HANDLES)
    return handle
  }
}
