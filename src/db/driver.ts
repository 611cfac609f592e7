import { hash } from 'node:crypto'
import {
  AbortedTransactionError,
  CompiledQuery as Compiled,
  type CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  type Driver,
  PostgresAdapter,
  PostgresIntrospector,
  PostgresQueryCompiler,
  type QueryResult,
  type TransactionSettings,
} from 'kysely'
import type { ClientBase } from 'pg'
import { ThreadbaseError } from '../core/errors.ts'
import type { Logger } from '../core/log.ts'
import {
  createQueryAs,
  type Identity,
  identityError,
  identityValues,
  SET_IDENTITY,
  type Statement,
  type Turn,
} from './as-user.ts'
import { endsSession, isReadOnly, mapDbError } from './errors.ts'
import { PLANNED_ANEW, type StatementTrace, type UserQuery } from './statements.ts'
import { typeParsers } from './types.ts'

/** One connection as the driver needs it: `broken` once it can serve no more; `destroy` breaks it off at once. */
export type Session = { client: ClientBase; broken: boolean; destroy(): void }

/** Where sessions come from: a pool of PostgreSQL connections, or the one of the embedded store. */
export type SessionSource = {
  /** @throws unavailable when none can be had. */
  acquire(): Promise<Session>
  release(session: Session): void
  close(): Promise<void>
  /** Whether all callers share one session, so that a transaction must keep the others waiting. */
  readonly shared: boolean
}

export type DriverOptions = {
  /** Send statements by name, so that the server plans them once per connection. Off behind a transaction pooler. */
  preparedStatements: boolean
  log: Logger
  slowQueryMs: number
  /** After which a statement without an answer is given up, with its session. Undefined: never. */
  queryTimeoutMs: number | undefined
  /** The role under which users' statements run. Undefined: the one that connected. */
  appRole: string | undefined
  /** Told of every statement by name, before it is sent; what it returns is called when it is over. */
  trace?: StatementTrace
}

const MAX_PREPARED = 500

/** What may take as long as it needs: migrations, waiting for that of another process included, and a change of keys. */
const isMigration = (query: CompiledQuery): boolean => /^(migrate|drift|keys)\./.test(queryName(query.sql))

/** The name in a statement's first comment (`/* messages.list *\/`), else its first word. */
export function queryName(text: string): string {
  return /^.{0,20}\/\* ([\w.-]+) \*\//s.exec(text)?.[1] ?? /^\s*\w+/.exec(text)?.[0].trim() ?? 'query'
}

/**
 * Lets one transaction at a time own the shared session; other callers' statements wait for its end. Who waits looks
 * again after every wake-up and acts in the same turn: an `await` in between would let two through together.
 */
class Gate {
  #owner: object | undefined
  #free: () => void = () => {}
  freed: Promise<void> = Promise.resolve()

  blocks(caller: object): boolean {
    return this.#owner !== undefined && this.#owner !== caller
  }

  async enter(caller: object): Promise<void> {
    while (this.blocks(caller)) await this.freed
    this.#owner = caller
    this.freed = new Promise((resolve) => {
      this.#free = resolve
    })
  }

  leave(caller: object): void {
    if (this.#owner !== caller) return
    this.#owner = undefined
    this.#free()
  }
}

/** Whose statement it is; `open` when its transaction has said so already. */
type Author = { readonly identity: Identity; open: boolean }

type Runner = {
  run(session: Session, query: CompiledQuery, author: Author | undefined): Promise<QueryResult<unknown>>
  /** The statement once for each turn, in one implicit transaction. */
  runAs(session: Session, query: CompiledQuery, turns: Turns): Promise<QueryResult<unknown>[]>
}
type Turns = readonly [Turn, ...Turn[]]

class Connection implements DatabaseConnection {
  readonly session: Session
  /** Undefined for the system, whose statements run as the role that connected. */
  readonly author: Author | undefined
  readonly #runner: Runner
  readonly #gate: Gate | undefined

  constructor(session: Session, identity: Identity | undefined, runner: Runner, gate: Gate | undefined) {
    this.session = session
    this.author = identity && { identity, open: false }
    this.#runner = runner
    this.#gate = gate
  }

  async executeQuery<R>(query: CompiledQuery): Promise<QueryResult<R>> {
    while (this.#gate?.blocks(this)) await this.#gate.freed
    return (await this.#runner.run(this.session, query, this.author)) as QueryResult<R>
  }

  async executeAs<R>(query: CompiledQuery, turns: Turns): Promise<QueryResult<R>[]> {
    while (this.#gate?.blocks(this)) await this.#gate.freed
    return (await this.#runner.runAs(this.session, query, turns)) as QueryResult<R>[]
  }

  // Results are read page by page with keysets: a cursor would hold the embedded store's only connection.
  // biome-ignore lint/correctness/useYield: the interface asks for a generator
  async *streamQuery<R>(): AsyncIterableIterator<QueryResult<R>> {
    throw new Error('streaming a query is not supported: page by keyset')
  }
}

export type Dialects = {
  /** The dialect of the system, or of one user under the app role. All of them share sessions. */
  of(userId?: string): Dialect
  /**
   * Runs one statement for each of several users under the app role, each time with values of its own, in one round
   * trip and one implicit transaction: all or none.
   */
  runForUsers<R>(role: string, calls: readonly UserQuery<R>[]): Promise<QueryResult<R>[]>
}

/** Kysely over `pg` sessions: named statements, slow-query log, errors in our own terms. */
export function createDialects(source: SessionSource, options: DriverOptions): Dialects {
  const runner = createRunner(options, source.shared)
  const gate = source.shared ? new Gate() : undefined
  const connect = async (identity?: Identity) =>
    new Connection(await source.acquire(), identity, runner, gate)
  return {
    of(userId) {
      const { appRole: role } = options
      const identity = role === undefined || userId === undefined ? undefined : { role, userId }
      return {
        createAdapter: () => new PostgresAdapter(),
        createDriver: () => createDriver(source, () => connect(identity), gate),
        createIntrospector: (db) => new PostgresIntrospector(db),
        createQueryCompiler: () => new PostgresQueryCompiler(),
      }
    },
    async runForUsers(role, calls) {
      const toTurn = ({ userId, query }: UserQuery): Turn => ({
        identity: { role, userId },
        values: query.parameters,
      })
      const [first, ...others] = calls
      if (first === undefined) return []
      if (others.some(({ query }) => query.sql !== first.query.sql))
        throw new Error('what runs for several users at once must be one statement')
      const connection = await connect()
      try {
        return await connection.executeAs(first.query, [toTurn(first), ...others.map(toTurn)])
      } finally {
        source.release(connection.session)
      }
    },
  }
}

function createDriver(
  source: SessionSource,
  acquire: () => Promise<Connection>,
  gate: Gate | undefined,
): Driver {
  return {
    init: async () => {},
    acquireConnection: acquire,
    releaseConnection: async (connection) => {
      gate?.leave(connection)
      source.release((connection as Connection).session)
    },
    beginTransaction: async (connection, settings: TransactionSettings) => {
      await gate?.enter(connection)
      await begin(connection as Connection, settings)
    },
    commitTransaction: async (connection) => {
      // PostgreSQL answers COMMIT of a failed transaction with ROLLBACK
      const result = await endWith(connection as Connection, 'commit')
      if (result.rows[0]?.command === 'ROLLBACK') throw new AbortedTransactionError()
    },
    rollbackTransaction: (connection) => rollback(connection as Connection),
    destroy: () => source.close(),
  }
}

async function begin(connection: Connection, settings: TransactionSettings): Promise<void> {
  const mode = [
    settings.isolationLevel && `isolation level ${settings.isolationLevel}`,
    settings.accessMode && settings.accessMode,
  ].filter(Boolean)
  const text = mode.length > 0 ? `start transaction ${mode.join(', ')}` : 'begin'
  const { author } = connection
  if (author === undefined) {
    await connection.executeQuery(Compiled.raw(text))
    return
  }
  author.open = true
  const { identity } = author
  try {
    // one behind the other, without waiting for the first
    const began = connection.executeQuery(Compiled.raw(text))
    const identified = connection.executeQuery(Compiled.raw(SET_IDENTITY, identityValues(identity)))
    await Promise.all([
      began,
      identified.catch((error) => {
        throw identityError(error, identity)
      }),
    ])
  } catch (error) {
    // Kysely takes a transaction that did not begin for none
    await rollback(connection).catch(() => {})
    throw error
  }
}

async function endWith(connection: Connection, command: 'commit' | 'rollback') {
  const result = await connection.executeQuery<{ command?: string }>(Compiled.raw(command))
  if (connection.author !== undefined) connection.author.open = false
  return result
}

async function rollback(connection: Connection): Promise<void> {
  try {
    await endWith(connection, 'rollback')
  } catch (error) {
    connection.session.broken = true
    throw error
  }
}

function createRunner(options: DriverOptions, shared: boolean): Runner {
  const names = { system: createNames('tb'), user: createNames('tu') }
  const identityName = options.preparedStatements ? names.user(SET_IDENTITY) : undefined
  const queryAs = createQueryAs(identityName)
  // statements without parameters are commands and migrations, which may be several in one text
  const toStatement = ({ sql, parameters }: CompiledQuery, nameOf: (text: string) => string | undefined) => ({
    name:
      options.preparedStatements && parameters.length > 0 && !sql.includes(PLANNED_ANEW)
        ? nameOf(sql)
        : undefined,
    text: sql,
    // the connections of an application's own pool have parsers of their own
    types: typeParsers,
  })
  const watch = createWatch(options, shared)
  const runAs: Runner['runAs'] = (session, query, turns) =>
    watch(session, query, async () => {
      const results = await queryAs(session.client, toStatement(query, names.user), turns)
      return results.map(toResult)
    })
  return {
    runAs,
    async run(session, query, author) {
      if (author !== undefined && !author.open) {
        const { identity } = author
        const [result] = await runAs(session, query, [{ identity, values: query.parameters }])
        return result as QueryResult<unknown>
      }
      // a plan is made for one role: under the same name it would be made anew whenever the role changes
      const statement: Statement = toStatement(query, author === undefined ? names.system : names.user)
      const values = query.parameters as unknown[]
      return watch(session, query, async () => toResult(await session.client.query({ ...statement, values })))
    },
  }
}

type Watch = <T>(session: Session, query: CompiledQuery, send: () => Promise<T>) => Promise<T>

/** What goes with every statement: its time limit, its trace, the slow-query log, and errors in our own terms. */
function createWatch(options: DriverOptions, shared: boolean): Watch {
  return async (session, query, send) => {
    const started = performance.now()
    const limit = startLimit(session, query, options.queryTimeoutMs)
    const end = options.trace?.(queryName(query.sql))
    try {
      const result = await send()
      end?.()
      return result
    } catch (error) {
      end?.(error)
      // another connection may lead to the new primary; the embedded store has but one
      if (endsSession(error) || (!shared && isReadOnly(error))) session.broken = true
      throw limit.passed() ? noAnswer(options.queryTimeoutMs, error) : mapDbError(error, session.broken)
    } finally {
      limit.stop()
      const ms = performance.now() - started
      if (ms > options.slowQueryMs && !isMigration(query))
        options.log.warn({ query: queryName(query.sql), ms: Math.round(ms) }, 'slow query')
    }
  }
}

/** Names for statements, one a text, for the first {@link MAX_PREPARED}. */
function createNames(prefix: string): (text: string) => string | undefined {
  const names = new Map<string, string>()
  return (text) => {
    const known = names.get(text)
    if (known !== undefined || names.size >= MAX_PREPARED) return known
    const name = `${prefix}_${hash('sha256', text, 'hex').slice(0, 24)}`
    names.set(text, name)
    return name
  }
}

type Limit = { passed(): boolean; stop(): void }

/** Breaks the session off when the time is over: a server that is silently gone would never answer. */
function startLimit(session: Session, query: CompiledQuery, ms: number | undefined): Limit {
  if (ms === undefined || isMigration(query)) return { passed: () => false, stop: () => {} }
  let state: 'running' | 'passed' | 'stopped' = 'running'
  const end = () => {
    if (state !== 'running') return
    state = 'passed'
    session.destroy()
  }
  // an answer that came while this process was held up (a stopped job, a busy event loop) is read first
  const timer = setTimeout(() => setImmediate(end), ms)
  const stop = () => {
    clearTimeout(timer)
    if (state === 'running') state = 'stopped'
  }
  return { passed: () => state === 'passed', stop }
}

function noAnswer(ms: number | undefined, cause: unknown): ThreadbaseError {
  const message = `the database did not answer within ${(ms ?? 0) / 1_000} s; whether the change was made is not known`
  return new ThreadbaseError('unavailable', message, undefined, { cause })
}

type RawResult = { command: string; rowCount: number | null; rows: unknown[] }

function toResult(result: RawResult): QueryResult<unknown> {
  const { command, rowCount, rows } = Array.isArray(result) ? (result.at(-1) as RawResult) : result
  if (command === 'ROLLBACK' || command === 'COMMIT') return { rows: [{ command }] }
  return { numAffectedRows: BigInt(rowCount ?? 0), rows }
}
