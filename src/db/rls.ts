import { setTimeout as delay } from 'node:timers/promises'
import { type Kysely, sql } from 'kysely'
import { ThreadbaseError } from '../core/errors.ts'
import type { Database } from './database.ts'
import { isSqlState } from './errors.ts'
import { run } from './migrate.ts'
import type { Schema } from './schema.ts'

const ATTEMPTS = 10
// made by another at the same moment: the role itself, a membership or a grant, of which the last has no code of its own
const MADE_BY_ANOTHER = ['42710', '23505', 'XX000']
const LACKS_RIGHT = '42501'

/**
 * Makes `database.forUser` ready under `enforce`, after the migrations; does nothing when row level security is off.
 * Creates the app role and grants what it lacks: to be set by the role that connected, and the rows of users. Where
 * nothing is missing there is no change, and so no right to make one is needed. Safe to call from many processes at once.
 * @param options.grant false: only checks
 * @throws unavailable with the SQL to run when a right is missing, and when row level security would bind the wrong role
 */
export async function prepareRls(database: Database, { grant }: { grant: boolean }): Promise<void> {
  if (database.rls === 'off') return
  let missing = await listMissing(database.db, database)
  for (let attempt = 1; grant && missing.length > 0 && attempt <= ATTEMPTS; attempt++) {
    if (!(await grantMissing(database))) break
    missing = await listMissing(database.db, database)
    if (missing.length > 0) await delay(10 * attempt * (1 + Math.random()))
  }
  if (missing.length > 0) throw lacksRights(missing)
  await requireBound(database)
}

/** False when the connected role may not. */
async function grantMissing(database: Database): Promise<boolean> {
  const { db, appRole } = database
  try {
    await db.transaction().execute(async (tx) => {
      const key = `threadbase role ${appRole}`
      await sql`/* rls.lock */ select pg_advisory_xact_lock(hashtext(${key}))`.execute(tx)
      for (const statement of await listMissing(tx, database)) await run(tx, statement)
    })
    return true
  } catch (error) {
    if (isSqlState(error, LACKS_RIGHT)) return false
    // a role is of the whole cluster, an advisory lock of one database
    if (isSqlState(error, ...MADE_BY_ANOTHER)) return true
    throw error
  }
}

type Missing = {
  // these three as identifiers, quoted where they must be: a role may be called `user`
  login: string
  app: string
  namespace: string
  exists: boolean
  /** Null, like the next, without the role or the schema. */
  settable: boolean | null
  usage: boolean | null
  tables: string[]
  functions: string[]
}

/** The statements that give the app role what it lacks, in order. */
async function listMissing(db: Kysely<Schema>, database: Database): Promise<string[]> {
  const { rows } = await sql<Missing>`
    /* rls.missing */
    with wanted as (
      select (select oid from pg_roles where rolname = ${database.appRole}) as role,
             (select oid from pg_namespace where nspname = ${database.schema}) as schema,
             -- a member may set a role; since PostgreSQL 16 only when the membership says so
             case when current_setting('server_version_num')::int < 160000 then 'member' else 'set' end as how)
    select quote_ident(session_user::text) as login, quote_ident(${database.appRole}::text) as app,
           quote_ident(${database.schema}::text) as namespace, role is not null as exists,
           pg_has_role(session_user, role, how) as settable,
           schema is null or has_schema_privilege(role, schema, 'usage') as usage,
           array(
             select format('%I.%I', ${database.schema}::text, c.relname) from pg_class c
              where c.relnamespace = schema and c.relkind in ('r', 'p') and c.relrowsecurity
                and (select bool_and(has_table_privilege(role, c.oid, privilege))
                       from unnest(array['select', 'insert', 'update', 'delete']) privilege) is not true
              order by 1) as tables,
           array(
             select p.oid::regprocedure::text from pg_proc p
              where p.pronamespace = schema and p.prokind = 'f'
                and has_function_privilege(role, p.oid, 'execute') is not true
              order by 1) as functions
      from wanted`.execute(db)
  const [found] = rows
  if (found === undefined) throw new Error('the catalog gave no answer')
  const { login, app, namespace, exists, settable, usage, tables, functions } = found
  return [
    ...(exists ? [] : [`create role ${app} nologin`]),
    // a superuser may set any role; it has no grant to miss, and needs none for a role that it makes
    ...(settable === true ? [] : [`grant ${app} to ${login}`]),
    ...(usage === true ? [] : [`grant usage on schema ${namespace} to ${app}`]),
    ...(tables.length === 0
      ? []
      : [`grant select, insert, update, delete on ${tables.join(', ')} to ${app}`]),
    ...(functions.length === 0 ? [] : [`grant execute on function ${functions.join(', ')} to ${app}`]),
  ]
}

function lacksRights(missing: string[]): ThreadbaseError {
  const statements = missing.map((statement) => `${statement};`).join('\n')
  return new ThreadbaseError(
    'unavailable',
    `DATABASE_RLS=enforce needs rights that the role of DATABASE_URL may not give; let an administrator of the database run:\n${statements}`,
    { sql: statements },
  )
}

/** @throws unavailable when row level security binds the role that connected, or does not bind the app role. */
async function requireBound(database: Database): Promise<void> {
  const bound = await listBound(database.db, database.schema)
  const [blind] = bound.filter(({ active }) => active)
  if (blind !== undefined) {
    throw new ThreadbaseError(
      'unavailable',
      `row level security binds the role of DATABASE_URL itself (on ${blind.name}), so that it cannot see all rows, as migrations and sign-in must: connect as the owner of the tables or as a role with bypassrls`,
    )
  }
  const [free] = (await listBound(database.forUser(''), database.schema)).filter(({ active }) => !active)
  if (free !== undefined) {
    throw new ThreadbaseError(
      'unavailable',
      `row level security does not bind the role ${database.appRole} of DATABASE_RLS_ROLE (on ${free.name}): it must not be a superuser, have bypassrls, own the tables, or be a member of their owner`,
    )
  }
}

async function listBound(db: Kysely<Schema>, schema: string) {
  const { rows } = await sql<{ name: string; active: boolean }>`
    /* rls.bound */
    select c.relname::text as name, row_security_active(c.oid) as active
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = ${schema} and c.relkind in ('r', 'p') and c.relrowsecurity
     order by 1`.execute(db)
  return rows
}
