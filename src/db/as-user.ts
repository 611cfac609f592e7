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

type Statement = { name: string | undefined; text: string; values: unknown[] }

type Wire = {
  parse(message: { text: string }): void
  bind(message: { statement: string | undefined; values: unknown[] }): void
  execute(message: { portal: string }): void
}
type Callback = (error: Error | null | undefined, result: pg.QueryResult) => void

/** What `pg.Query` has and its published types leave out. */
type InnerQuery = pg.Query & {
  callback: Callback
  requiresPreparation(): boolean
  prepare(connection: Wire): void
  handleDataRow(message: unknown): void
  handleCommandComplete(message: unknown, connection: Wire): void
}
const InnerQuery = pg.Query as unknown as new (config: Statement) => InnerQuery

/**
 * A statement behind another that sets its identity, with one Sync after both: PostgreSQL runs what comes before a
 * Sync in one implicit transaction (manual, "Pipelining"). So there is one round trip and no begin or commit, and
 * when the statement has ended, whichever way, the connection is nobody's again.
 */
class QueryAs extends InnerQuery {
  readonly #identity: Statement
  #identified = false

  /** Whether the settings took effect: what failed after that is the statement. */
  get identified(): boolean {
    return this.#identified
  }

  constructor(statement: Statement, identity: Statement) {
    super(statement)
    this.#identity = identity
  }

  // the simple protocol of statements without parameters would be a transaction of its own
  override requiresPreparation(): boolean {
    return true
  }

  override prepare(connection: Wire): void {
    const { name, text, values } = this.#identity
    if (name === undefined) connection.parse({ text })
    connection.bind({ statement: name, values })
    connection.execute({ portal: '' })
    super.prepare(connection)
  }

  // the first row and the first end are those of the settings
  override handleDataRow(message: unknown): void {
    if (this.#identified) super.handleDataRow(message)
  }

  override handleCommandComplete(message: unknown, connection: Wire): void {
    if (this.#identified) super.handleCommandComplete(message, connection)
    this.#identified = true
  }
}

/**
 * Makes what sends a statement under an identity. Everything is written to the connection before the call returns:
 * on one that is shared, nothing can come in between.
 * @param identityName under which the settings' statement is prepared; undefined to parse it each time
 */
export function createQueryAs(identityName: string | undefined) {
  const prepared = new WeakSet<pg.ClientBase>()
  // `pg` keeps account of one name a query: the settings' statement is prepared by one of its own
  const prepare = async (client: pg.ClientBase, values: string[]): Promise<void> => {
    if (identityName === undefined || prepared.has(client)) return
    prepared.add(client)
    try {
      await client.query({ name: identityName, text: SET_IDENTITY, values })
    } catch (error) {
      prepared.delete(client)
      throw error
    }
  }
  return async (client: pg.ClientBase, identity: Identity, statement: Statement): Promise<pg.QueryResult> => {
    const values = identityValues(identity)
    const preparing = prepare(client, values).catch((error) => {
      throw identityError(error, identity)
    })
    const query = new QueryAs(statement, { name: identityName, text: SET_IDENTITY, values })
    const answer = new Promise<pg.QueryResult>((resolve, reject) => {
      query.callback = (error, result) => {
        if (!error) resolve(result)
        else reject(query.identified ? error : identityError(error, identity))
      }
    })
    client.query(query)
    // why the settings failed comes before that their statement is not there
    const [, result] = await Promise.all([preparing, answer])
    return result
  }
}
