import { randomBytes } from 'node:crypto'
import { type Kysely, sql } from 'kysely'
import { ThreadbaseError } from '../core/errors.ts'
import type { Database } from './database.ts'
import { isSqlState } from './errors.ts'
import { appliedRevisions, run } from './migrate.ts'
import { inSchema, type Migration, quoteIdentifier } from './migrations.ts'
import type { Schema } from './schema.ts'

/** What the migrations make and what the database has, under one name such as `column messages.role`. */
export type Difference = { object: string; expected: string | undefined; actual: string | undefined }

class Rollback extends Error {}

/**
 * Compares the live schema with what the migrations make: tables, columns, types, collations, defaults, indexes, constraints,
 * policies, functions, triggers. The migrations run in a scratch schema of a transaction that is rolled back, so both
 * sides are printed by the same server. Needs the right to create a schema.
 * @returns every difference, by name; none when the database is as it should be
 * @throws unavailable when the role may not create a schema in this database
 */
export async function findDrift(database: Database, migrations: Migration[]): Promise<Difference[]> {
  const expected = await describeMigrated(database, migrations)
  const actual = await describeSchema(database.db, database.schema)
  for (const [key, value] of revisionFacts(migrations)) expected.set(key, value)
  for (const [key, value] of revisionFacts(await appliedRevisions(database))) actual.set(key, value)
  const names = [...new Set([...expected.keys(), ...actual.keys()])].sort()
  return names
    .map((object) => ({ object, expected: expected.get(object), actual: actual.get(object) }))
    .filter((difference) => difference.expected !== difference.actual)
}

function revisionFacts(
  revisions: { revision: string; name: string; checksum: string }[],
): [string, string][] {
  return revisions.map((r) => [`revision ${r.revision}`, `${r.name}, file ${r.checksum.slice(0, 12)}`])
}

async function describeMigrated({ db }: Database, migrations: Migration[]): Promise<Map<string, string>> {
  const scratch = `threadbase_check_${randomBytes(6).toString('hex')}`
  let found = new Map<string, string>()
  try {
    await db.transaction().execute(async (tx) => {
      await makeScratch(tx, scratch)
      for (const migration of migrations) await run(tx, inSchema(migration.up, scratch))
      found = await describeSchema(tx, scratch)
      throw new Rollback()
    })
  } catch (error) {
    if (!(error instanceof Rollback)) throw error
  }
  return found
}

async function makeScratch(tx: Kysely<Schema>, scratch: string): Promise<void> {
  try {
    await run(tx, `create schema ${scratch}`)
  } catch (cause) {
    if (!isSqlState(cause, '42501')) throw cause
    const message =
      'comparing runs the migrations in a scratch schema that is rolled back, for which the role of DATABASE_URL lacks the right: `grant create on database … to …`, or compare as another role'
    throw new ThreadbaseError('unavailable', message, undefined, { cause })
  }
}

async function describeSchema(db: Kysely<Schema>, schema: string): Promise<Map<string, string>> {
  const { rows } = await sql<{ object: string; definition: string | null }>`
    /* drift.describe */
    with ns as (select oid from pg_namespace where nspname = ${schema}),
    tables as (
      select c.* from pg_class c, ns
       where c.relnamespace = ns.oid and c.relkind in ('r', 'p', 'v', 'm') and c.relname <> 'schema_revisions')
    select 'table ' || relname as object,
           case relkind when 'v' then 'view ' || pg_get_viewdef(oid) when 'm' then 'materialized view ' || pg_get_viewdef(oid)
                        else 'table' end
           || case when relrowsecurity then ', row level security' else '' end
           || case when relforcerowsecurity then ', forced' else '' end as definition
      from tables
    union all
    select 'column ' || t.relname || '.' || a.attname,
           format_type(a.atttypid, a.atttypmod)
           || case when a.attcollation <> y.typcollation then ' collate ' || o.collname else '' end
           || case when a.attnotnull then ' not null' else '' end
           || case when a.attgenerated <> '' then ' generated' when a.attidentity <> '' then ' identity' else '' end
           || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')
      from tables t
      join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped
      join pg_type y on y.oid = a.atttypid
      left join pg_collation o on o.oid = a.attcollation
      left join pg_attrdef d on d.adrelid = t.oid and d.adnum = a.attnum
     -- added where there is the extension
     where not (a.attname = 'embedding' and t.relname in ('messages', 'chain_analysis_results'))
    union all
    select 'index ' || i.relname, pg_get_indexdef(i.oid) || case when x.indisvalid then '' else ' (invalid)' end
      from tables t join pg_index x on x.indrelid = t.oid join pg_class i on i.oid = x.indexrelid
     -- made for the dimensions that are in use, where there is the extension
     where i.relname !~ '^(store_vectors_nearest_[0-9]+|messages_by_embedding(_next)?)$'
    union all
    select 'constraint ' || t.relname || '.' || c.conname, pg_get_constraintdef(c.oid)
      from tables t join pg_constraint c on c.conrelid = t.oid
    union all
    select 'policy ' || t.relname || '.' || p.polname,
           'for ' || p.polcmd::text || case when p.polpermissive then '' else ' restrictive' end
           || ' to ' || (select string_agg(case r when 0 then 'public' else pg_get_userbyid(r) end, ', ') from unnest(p.polroles) r)
           || coalesce(' using ' || pg_get_expr(p.polqual, p.polrelid), '')
           || coalesce(' with check ' || pg_get_expr(p.polwithcheck, p.polrelid), '')
      from tables t join pg_policy p on p.polrelid = t.oid
    union all
    select 'function ' || p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')',
           -- what it returns is a setting
           case p.proname when 'search_language' then 'function' else pg_get_functiondef(p.oid) end
      from pg_proc p, ns where p.pronamespace = ns.oid and p.prokind in ('f', 'p')
    union all
    select 'trigger ' || t.relname || '.' || g.tgname, pg_get_triggerdef(g.oid)
      from tables t join pg_trigger g on g.tgrelid = t.oid and not g.tgisinternal
    union all
    select 'type ' || y.typname, y.typtype::text || coalesce((select string_agg(e.enumlabel, ', ' order by e.enumsortorder) from pg_enum e where e.enumtypid = y.oid), '')
      from pg_type y, ns where y.typnamespace = ns.oid and y.typtype in ('e', 'd', 'r')
    union all
    select 'sequence ' || c.relname, 'sequence' from pg_class c, ns where c.relnamespace = ns.oid and c.relkind = 'S'
  `.execute(db)
  // The schema's name before one of its own objects: not within a setting's name such as 'threadbase.user_id', nor
  // where a function has an alias of the same name.
  const names = rows.map(({ object }) => object.replace(/^\w+ /, '').replace(/[.(].*/s, ''))
  const any = [...new Set(names)].map((name) => escapePattern(quoteIdentifier(name))).join('|')
  const own = new RegExp(`(?<!['\\w])${escapePattern(quoteIdentifier(schema))}\\.(?=(?:${any})(?!\\w))`, 'g')
  return new Map(rows.map(({ object, definition }) => [object, (definition ?? '').replace(own, '')]))
}

function escapePattern(text: string): string {
  return text.replace(/[^\w]/g, '\\$&')
}
