import pg from 'pg'
import { ThreadbaseError } from '../core/errors.ts'
import { isSqlState } from './errors.ts'

/** On whose behalf statements run: the role that row level security binds, and the user whose rows it may see. */
export type Identity = { readonly role: string; readonly userId: string }

/** Both settings end with the transaction. The parameters are those of {@link identityValues}. */
export const SET_IDENTITY =
  "/* rls.identity */ select set_config('role', $1, true), set_config('threadbase.user_id', $2, true)"

export const identityValues = ({ role, userId }: Identity): string[] => [role, userId]

// no such role, and no right to set it
const NO_ROLE = ['22023', '42501']

/** What the settings failed with: the role's absence is nothing that a caller's value could be blamed for. */
export function identityError(error: unknown, { role }: Identity): unknown {
  if (!isSqlState(error, ...NO_ROLE)) return error
  return new ThreadbaseError(
    'unavailable',
    `the role of DATABASE_URL may not work as ${role} (DATABASE_RLS_ROLE), or there is no such role: run \`threadbase db upgrade\``,
    undefined,
    { cause: error },
  )
}

/** What is sent, by the name under which it is prepared; without one it is parsed each time. */
export type Statement = { name: string | undefined; text: string; types: pg.CustomTypesConfig }

type Parsed = Pick<Statement, 'name' | 'text'>

/** One run of a statement: for whom, and with what values. */
export type Turn = { readonly identity: Identity; readonly values: readonly unknown[] }

type Wire = {
  parse(message: Parsed): void
  bind(message: { statement: string | undefined; values: unknown[] }): void
  describe(message: { type: 'P' }): void
  execute(message: { portal: string }): void
  sync(): void
  submittedNamedStatements: Record<string, string>
}
type Callback = (error: Error | null | undefined, results: pg.QueryResult | pg.QueryResult[]) => void

/** What `pg.Query` has and its published types leave out. */
type InnerQuery = pg.Query & {
  callback: Callback
  requiresPreparation(): boolean
  hasBeenParsed(connection: Wire): boolean
  prepare(connection: Wire): void
  handleDataRow(message: unknown): void
  handleCommandComplete(message: unknown, connection: Wire): void
}
const InnerQuery = pg.Query as unknown as new (config: Statement) => InnerQuery

/** A value as `pg` sends it: text, bytes or null. */
const { prepareValue } = (pg as unknown as { utils: { prepareValue(value: unknown): unknown } }).utils

/**
 * A statement once for each turn, each time behind another one that sets the identity, with one Sync after all:
 * PostgreSQL runs what comes before a Sync in one implicit transaction (manual, "Pipelining"). So there is one round
 * trip and no begin or commit, all turns are stored or none, and when they have ended, whichever way, the connection is
 * nobody's again. The results are those of the turns, which `pg` keeps apart as those of a text of several statements.
 */
class QueryAs extends InnerQuery {
  readonly #statement: Statement
  readonly #setIdentity: Parsed
  readonly #turns: { identity: string[]; values: unknown[] }[]
  // of settings and statement in alternation
  #ended = 0

  /** @throws what a value says that cannot be sent. Nothing has been by then, not even for the turns before it. */
  constructor(statement: Statement, setIdentity: Parsed, turns: readonly Turn[]) {
    super(statement)
    this.#statement = statement
    this.#setIdentity = setIdentity
    this.#turns = turns.map(({ identity, values }) => ({
      identity: identityValues(identity),
      // called with each value alone: a second argument would be taken for what was seen before
      values: values.map((value) => prepareValue(value)),
    }))
  }

  /** Whether it is settings that have begun and not ended: an error that comes now is theirs. */
  get identifying(): boolean {
    return this.#ended % 2 === 0 && this.#ended < 2 * this.#turns.length
  }

  // the simple protocol of statements without parameters would be a transaction of its own
  override requiresPreparation(): boolean {
    return true
  }

  override prepare(connection: Wire): void {
    const send = (statement: Parsed, values: unknown[]) =>
      connection.bind({ statement: statement.name, values })
    for (const { identity, values } of this.#turns) {
      if (this.#setIdentity.name === undefined) connection.parse(this.#setIdentity)
      send(this.#setIdentity, identity)
      connection.execute({ portal: '' })
      this.#parse(connection)
      send(this.#statement, values)
      connection.describe({ type: 'P' })
      connection.execute({ portal: '' })
    }
    connection.sync()
  }

  /** Behind the settings, as the plan is made for their role. `pg` keeps account of what is parsed. */
  #parse(connection: Wire): void {
    if (this.hasBeenParsed(connection)) return
    const { name, text } = this.#statement
    connection.parse(this.#statement)
    if (name !== undefined) connection.submittedNamedStatements[name] = text
  }

  override handleDataRow(message: unknown): void {
    if (!this.identifying) super.handleDataRow(message)
  }

  override handleCommandComplete(message: unknown, connection: Wire): void {
    if (!this.identifying) super.handleCommandComplete(message, connection)
    this.#ended++
  }
}

/** Sends a statement for its turns, all or none, and gives a result for each. There is one turn at least. */
export type SendAs = (
  client: pg.ClientBase,
  statement: Statement,
  turns: readonly [Turn, ...Turn[]],
) => Promise<pg.QueryResult[]>

/**
 * Makes what sends a statement under identities. Everything is written to the connection before the call returns:
 * on one that is shared, nothing can come in between.
 * @param identityName under which the settings' statement is prepared; undefined to parse it each time
 */
export function createQueryAs(identityName: string | undefined): SendAs {
  const setIdentity = { name: identityName, text: SET_IDENTITY }
  const prepared = new WeakSet<pg.ClientBase>()
  // `pg` keeps account of one name a query: the settings' statement is prepared by one of its own
  const prepare = async (client: pg.ClientBase, values: string[]): Promise<void> => {
    if (identityName === undefined || prepared.has(client)) return
    prepared.add(client)
    try {
      await client.query({ ...setIdentity, values })
    } catch (error) {
      prepared.delete(client)
      throw error
    }
  }
  return async (client, statement, turns) => {
    const query = new QueryAs(statement, setIdentity, turns)
    const [{ identity }] = turns
    const preparing = prepare(client, identityValues(identity)).catch((error) => {
      throw identityError(error, identity)
    })
    const answer = new Promise<pg.QueryResult[]>((resolve, reject) => {
      query.callback = (error, results) => {
        if (error) reject(query.identifying ? identityError(error, identity) : error)
        else resolve([results].flat())
      }
    })
    client.query(query)
    // why the settings failed comes before that their statement is not there
    const [, results] = await Promise.all([preparing, answer])
    return results
  }
}
