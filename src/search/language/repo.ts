import { sql } from 'kysely'
import { run } from '../../db/migrate.ts'
import { quoteIdentifier } from '../../db/migrations.ts'
import { type Db, t } from '../../db/schema.ts'

/** A text search configuration, as the database names it: `pg_catalog.english`. */
export type Language = {
  schema: string
  name: string
  /** Whether it is the one in use. */
  isCurrent: boolean
}

/** Undefined when the database has no such configuration. */
export async function findLanguage(db: Db, wanted: string): Promise<Language | undefined> {
  const [name, schema] = wanted.split('.', 2).reverse() as [string, string?]
  const { rows } = await sql<Language>`
    /* search.language */
    select n.nspname::text as schema, c.cfgname::text as name, c.oid = ${t.searchLanguage}()::oid as "isCurrent"
      from pg_ts_config c join pg_namespace n on n.oid = c.cfgnamespace
     where c.cfgname = ${name}
       and case when ${schema ?? null}::text is null then pg_ts_config_is_visible(c.oid)
                else n.nspname = ${schema ?? null}::text end`.execute(db)
  return rows[0]
}

/** The languages that the database knows, by name. */
export async function listLanguages(db: Db): Promise<string[]> {
  const { rows } = await sql<{ name: string }>`
    /* search.languages */
    select distinct cfgname::text as name from pg_ts_config order by 1`.execute(db)
  return rows.map(({ name }) => name)
}

const qualified = ({ schema, name }: Language) => `${schema}.${name}`

/** Makes a language the one in use. What was stored before keeps its words. */
export async function setLanguage(tx: Db, schema: string, language: Language): Promise<void> {
  const ours = quoteIdentifier(schema)
  const quoted = `${quoteIdentifier(language.schema)}.${quoteIdentifier(language.name)}`.replaceAll("'", "''")
  await sql`/* migrate.search_language */
    select pg_advisory_xact_lock(hashtext(${`threadbase search language ${schema}`}))`.execute(tx)
  await run(
    tx,
    `create or replace function ${ours}.search_language() returns regconfig
     language sql stable parallel safe return '${quoted}'::regconfig`,
  )
  await sql`
    /* search.set_language */
    insert into ${t.searchLanguages} (language) values (${qualified(language)})
    on conflict (language) do update set chosen_at = excluded.chosen_at`.execute(tx)
  // where nothing is stored, nothing has the words of another language
  await sql`
    /* search.forget_languages */
    delete from ${t.searchLanguages}
     where language <> ${qualified(language)} and not exists (select from ${t.messages})
       and not exists (select from ${t.chainAnalysisResults})`.execute(tx)
}

export type WordState = {
  /** What words are made with. */
  language: string
  /** What else rows may have their words of. */
  others: string[]
}

export async function readState(db: Db): Promise<WordState> {
  const { rows } = await sql<WordState>`
    /* search.state */
    with current as (
      select n.nspname || '.' || c.cfgname as language from pg_ts_config c join pg_namespace n on n.oid = c.cfgnamespace
       where c.oid = ${t.searchLanguage}()::oid)
    select language, array(select l.language from ${t.searchLanguages} l where l.language <> current.language
                            order by 1) as others
      from current`.execute(db)
  return rows[0] ?? { language: 'unknown', others: [] }
}

/** About how many rows have words. */
export async function countRows(db: Db, schema: string): Promise<number> {
  const { rows } = await sql<{ rows: number }>`
    /* search.rows */
    select coalesce(sum(greatest(c.reltuples, 0)), 0)::float8 as rows
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = ${schema} and c.relname in ('messages', 'chain_analysis_results')`.execute(db)
  return rows[0]?.rows ?? 0
}

/** Where a walk over rows is; undefined before its first. */
export type RowKey = { userId: string; threadId: string; seq: number }
export type Batch = { seen: number; changed: number; last: RowKey | undefined }

type BatchRow = {
  seen: number
  changed: number
  user_id: string | null
  thread_id: string | null
  seq: number | null
}

/** Makes the words of the messages behind a key anew, in the order of their key; those that are right stay untouched. */
export async function remakeWords(db: Db, after: RowKey | undefined, limit: number): Promise<Batch> {
  const { rows } = await sql<BatchRow>`
    /* search.reindex */
    with batch as materialized (
      select user_id, thread_id, seq, words as old,
             ${t.wordsOf}(user_id, ${t.messageText}(text, content, tool_name, tool_output)) as new
        from (select * from ${t.messages}
               where (user_id, thread_id, seq) > (${after?.userId ?? ''}::text,
                     ${after?.threadId ?? '00000000-0000-0000-0000-000000000000'}::uuid, ${after?.seq ?? 0}::bigint)
               order by user_id, thread_id, seq limit ${limit}::bigint) m
    ), remade as (
      update ${t.messages} m set words = b.new from batch b
       where m.user_id = b.user_id and m.thread_id = b.thread_id and m.seq = b.seq and b.old is distinct from b.new
      returning 1
    )
    select (select count(*)::int from batch) as seen, (select count(*)::int from remade) as changed, l.*
      from (select 1) one
      left join (select user_id, thread_id, seq from batch order by user_id desc, thread_id desc, seq desc limit 1) l on true`.execute(
    db,
  )
  return toBatch(rows[0])
}

/** As {@link remakeWords}, of results of sessions. */
export async function remakeAnalysisWords(db: Db, after: RowKey | undefined, limit: number): Promise<Batch> {
  const { rows } = await sql<BatchRow>`
    /* search.reindex_analyses */
    with batch as materialized (
      select user_id, session_id, words as old, text, ${t.wordsOf}(user_id, text) as new
        from (select * from ${t.chainAnalysisResults}
               where (user_id, session_id) > (${after?.userId ?? ''}::text,
                     ${after?.threadId ?? '00000000-0000-0000-0000-000000000000'}::uuid)
               order by user_id, session_id limit ${limit}::bigint) a
    ), remade as (
      -- one that was changed since has its words
      update ${t.chainAnalysisResults} a set words = b.new from batch b
       where a.user_id = b.user_id and a.session_id = b.session_id and b.old is distinct from b.new and a.text = b.text
      returning 1
    )
    select (select count(*)::int from batch) as seen, (select count(*)::int from remade) as changed, l.*, 0 as seq
      from (select 1) one
      left join (select user_id, session_id as thread_id from batch order by user_id desc, session_id desc limit 1) l
        on true`.execute(db)
  return toBatch(rows[0])
}

function toBatch(row: BatchRow | undefined): Batch {
  if (row === undefined) return { seen: 0, changed: 0, last: undefined }
  const { seen, changed, user_id: userId, thread_id: threadId, seq } = row
  const last = userId === null || threadId === null ? undefined : { userId, threadId, seq: seq ?? 0 }
  return { seen, changed, last }
}

/** The time of the database, for {@link forgetOthers}. */
export async function readClock(db: Db): Promise<Date> {
  const { rows } = await sql<{ now: Date }>`/* search.clock */ select clock_timestamp() as now`.execute(db)
  return rows[0]?.now ?? new Date(0)
}

/** Forgets the other languages, unless one was chosen after a time or the language is another by now. */
export async function forgetOthers(db: Db, language: string, before: Date): Promise<void> {
  await sql`
    /* search.forget_others */
    delete from ${t.searchLanguages}
     where language <> ${language} and chosen_at < ${before}
       and exists (select from pg_ts_config c join pg_namespace n on n.oid = c.cfgnamespace
                    where c.oid = ${t.searchLanguage}()::oid and n.nspname || '.' || c.cfgname = ${language})`.execute(
    db,
  )
}
