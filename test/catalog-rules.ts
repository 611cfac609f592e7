import { type Kysely, sql } from 'kysely'
import type { Schema } from '../src/db/schema.ts'

/** Tables that belong to no user. A table without user_id that is not named here is a mistake. */
export const SHARED_TABLES = new Set([
  'schema_revisions',
  'blobs',
  'blob_removals',
  'embedding_models',
  'search_languages',
])
/** The tenants themselves: their id is what user_id is elsewhere. What one signs in with is unique among all of them. */
const TENANTS = 'users'
const TENANT_INDEXES = new Set(['users_pkey', 'users_by_username', 'users_by_email'])

/**
 * Where the tables of a schema break the rule "tenant first" of the design, one sentence each: `user_id text not null`
 * leads the primary key, every unique index and every foreign key between such tables, and row level security is on
 * with a policy.
 */
export async function findTenantProblems(db: Kysely<Schema>, schema: string): Promise<string[]> {
  const { rows: tables } = await sql<TableFacts>`
    select c.oid::int as oid, c.relname::text as name, c.relrowsecurity as secured,
           (select format_type(a.atttypid, a.atttypmod) || case when a.attnotnull then ' not null' else '' end
              from pg_attribute a where a.attrelid = c.oid and a.attname = 'user_id' and not a.attisdropped) as user_id,
           exists (select from pg_policy p where p.polrelid = c.oid) as has_policy,
           exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary) as has_key
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = ${schema} and c.relkind in ('r', 'p') order by c.relname`.execute(db)
  const problems: string[] = []
  for (const table of tables) {
    if (SHARED_TABLES.has(table.name)) continue
    if (table.name === TENANTS) {
      if (!table.secured || !table.has_policy) problems.push(`${table.name} has row level security off`)
      problems.push(...(await findIndexProblems(db, table)).filter((one) => !isTenantIndex(one)))
      continue
    }
    if (table.user_id === null) {
      problems.push(`${table.name} has no user_id`)
      continue
    }
    if (table.user_id !== 'text not null') problems.push(`${table.name}.user_id is ${table.user_id}`)
    if (!table.has_key) problems.push(`${table.name} has no primary key`)
    if (!table.secured) problems.push(`${table.name} has row level security off`)
    if (!table.has_policy) problems.push(`${table.name} has no policy`)
    problems.push(...(await findIndexProblems(db, table)), ...(await findReferenceProblems(db, table)))
  }
  return problems
}

function isTenantIndex(problem: string): boolean {
  return TENANT_INDEXES.has(/unique index (\w+)/.exec(problem)?.[1] ?? '')
}

type TableFacts = {
  oid: number
  name: string
  secured: boolean
  user_id: string | null
  has_policy: boolean
  has_key: boolean
}

async function findIndexProblems(db: Kysely<Schema>, { oid, name }: TableFacts): Promise<string[]> {
  const { rows } = await sql<{ name: string; first: string }>`
    select i.indexrelid::regclass::text as name, pg_get_indexdef(i.indexrelid, 1, true) as first
      from pg_index i where i.indrelid = ${oid}::oid and i.indisunique`.execute(db)
  return rows
    .filter(({ first }) => first !== 'user_id')
    .map((index) => `${name}: unique index ${index.name.replace(/.*\./, '')} begins with ${index.first}`)
}

type Reference = {
  name: string
  here: string
  there: string | null
  to_tenant: boolean
  target_has_user: boolean
}

async function findReferenceProblems(db: Kysely<Schema>, { oid, name }: TableFacts): Promise<string[]> {
  const { rows } = await sql<Reference>`
    select f.conname::text as name, a.attname::text as here, b.attname::text as there,
           f.confrelid::regclass::text ~ ${`(^|\\.)${TENANTS}$`} as to_tenant,
           exists (select from pg_attribute u where u.attrelid = f.confrelid and u.attname = 'user_id') as target_has_user
      from pg_constraint f
      join pg_attribute a on a.attrelid = f.conrelid and a.attnum = f.conkey[1]
      join pg_attribute b on b.attrelid = f.confrelid and b.attnum = f.confkey[1]
     where f.conrelid = ${oid}::oid and f.contype = 'f'`.execute(db)
  return rows
    .filter(({ here, there, to_tenant, target_has_user }) => {
      if (to_tenant) return !(here === 'user_id' && there === 'id')
      return target_has_user && !(here === 'user_id' && there === 'user_id')
    })
    .map((reference) => `${name}: foreign key ${reference.name} begins with ${reference.here}`)
}
