import { type RawBuilder, sql } from 'kysely'
import { idAfter } from '../../core/ids.ts'
import { t } from '../../db/schema.ts'
import { stemsOf, type TextQuery } from '../query.ts'
import type { SearchMethod } from '../schema.ts'

/** Whose rows, and which of them. */
export type Filters = {
  userId: string
  /** Whether the database itself keeps the rows of others away: then its own condition must find the index. */
  isBound: boolean
  threadId: string | undefined
  kind: string | undefined
  role: string | undefined
  since: Date | undefined
  until: Date | undefined
  includeArchived: boolean
  /** Words of which none may be there, for `websearch_to_tsquery`; null: all may. */
  without: string | null
  /** Only what was there at that time; null: now. */
  asOf: Date | null
}

/** What is looked for in texts, and how. */
export type Text = TextQuery & { text: string; method: SearchMethod; trigrams: Trigrams | undefined }

/** The schema of the extension pg_trgm. */
export type Trigrams = { schema: string }

// Where nothing has all the words, the newest rows are looked at one by one; this bounds how long it takes.
const SUBSTRING = { rows: 20_000, bytes: 64_000_000 }
const SIMILAR = { rows: 5_000, bytes: 8_000_000 }
const LEAST_SIMILARITY = 0.5
const MAX_ANALYSES = 2_000
/** Beginnings that the index is not asked for, behind other words and alone. */
const SHORT_AFTER_WORDS = 3
const SHORT_ALONE = 2
/** The rows that are looked at for those. */
const RECENT = { rows: 2_000, bytes: 8_000_000 }

/**
 * The text of a message as it is searched. In rows of a join, where any column may be null.
 */
export const messageText = (m: string) => {
  const column = (name: string) => sql.ref(`${m}.${name}`)
  return sql`${t.messageText}(${column('text')}, ${column('content')}, ${column('tool_name')}, ${column('tool_output')})`
}

export const language = sql`${t.searchLanguage}()`
const quoted = (word: RawBuilder<unknown>) => sql`'''' || ${word} || ''''`

/**
 * Whose a row is. Where nothing else keeps the rows of others away, written so that no index on user_id serves: the
 * words lead to the rows, and with them is whose they are.
 */
export const owned = (table: string, { userId, isBound }: Filters) => {
  const column = sql.ref(`${table}.user_id`)
  return isBound ? sql`${column} = ${userId}` : sql`${column} is not distinct from ${userId}`
}

/** What of a message must hold beside the query. Absent values let all pass, so that one plan serves. */
export const messageFilters = (m: string, { threadId, role, since, until, asOf, without }: Filters) => {
  const column = (name: string) => sql.ref(`${m}.${name}`)
  return sql`(${threadId ?? null}::uuid is null or ${column('thread_id')} = ${threadId ?? null}::uuid)
         and (${role ?? null}::text is null or ${column('role')} = ${role ?? null}::text)
         and ${column('created_at')} >= coalesce(${since ?? null}::timestamptz, '-infinity')
         and ${column('created_at')} < coalesce(${until ?? null}::timestamptz, 'infinity')
         and ${column('id')} < ${idAfter(asOf)}::uuid and ${hasNone(column('words'), without)}`
}

export const analysisFilters = (a: string, { threadId, role, since, until, asOf, without }: Filters) => {
  const column = (name: string) => sql.ref(`${a}.${name}`)
  return sql`${role ?? null}::text is null
         and (${threadId ?? null}::uuid is null or ${column('session_id')} = ${threadId ?? null}::uuid)
         and ${column('updated_at')} >= coalesce(${since ?? null}::timestamptz, '-infinity')
         and ${column('updated_at')} < coalesce(${until ?? null}::timestamptz, 'infinity')
         and ${column('updated_at')} <= coalesce(${asOf}::timestamptz, 'infinity')
         and ${hasNone(column('words'), without)}`
}

/** No index serves it. */
const hasNone = (words: RawBuilder<unknown>, without: string | null) => sql`
         (${without}::text is null or not ts_match_vq(${words}, websearch_to_tsquery(${language}, ${without}::text)))`

/** Whether the thread of a row is to be shown. */
const inThread = (threadId: RawBuilder<unknown>, { userId, kind, includeArchived }: Filters) => sql`(
  select (${includeArchived}::boolean or th.archived_at is null)
         and (${kind ?? null}::text is null or th.kind = ${kind ?? null}::text)
    from ${t.threads} th where th.user_id = ${userId} and th.id = ${threadId})`

/**
 * Hits in threads that are to be shown. Each is looked up by its key, which costs as much as there are hits: the planner
 * cannot know how many these are, and would take a join that is fast for one.
 */
export const inThreads = (hits: RawBuilder<unknown>, filters: Filters) =>
  sql`select h.* from (${hits}) h where ${inThread(sql`h.thread_id`, filters)}`

/** How many rows are wanted, and below which id. Substrings are found newest first: looking may stop there. */
export type Wanted = { limit: number; below: string | undefined }

/**
 * CTEs beside {@link wordsCtes}, of which `found` has the rows (type, thread_id, id, at, score) that the text is found
 * in.
 */
export function foundCtes(text: Text, filters: Filters, wanted: Wanted): RawBuilder<unknown> {
  if (text.method === 'substring') {
    const term = onlyTerm(text)
    // the rows of one thread are in another order
    return term === undefined || filters.threadId !== undefined
      ? found(contained(text, filters), filters)
      : sql`found as materialized (${newestWith(term, filters, wanted)})`
  }
  if (text.method === 'similar') return found(resembling(text, filters), filters)
  const isStemmed = text.method === 'words' && text.last !== undefined && stemsOf(text.last.word).length > 0
  const pattern = isStemmed ? `\\m${text.last?.word}` : null
  // all of the user's rows are walked over: once
  if (filters.isBound) return found(withWords(filters, both('walked'), isRight(pattern)), filters)
  return sql`
    whole_hits as materialized (${inThreads(withWords(filters, both('whole_indexed'), isTrue), filters)}),
    ${askedCtes(filters)}, found as materialized (
      select * from whole_hits
      union all
      ${inThreads(withMore(text, filters, isMore(pattern)), filters)})`
}

const found = (rows: RawBuilder<unknown>, filters: Filters) =>
  sql`found as materialized (${inThreads(rows, filters)})`

/** Where so many have the last word itself, it is not taken for the beginning of others. */
const ENOUGH = 100
/** So many rows are looked at one by one as quickly as the index reads the words of all users that have a beginning. */
const FEW = 1_000

/**
 * CTEs, of which `words` has what is asked of words, made once: `whole_indexed` leads to the rows with the words as they
 * are, `more_indexed` to those for which the last is the beginning of one, as long as it is not so short that many words
 * begin with it; `before_indexed` to those with the words before it, which are all rows of the user where it is `alone`.
 * `walked` takes them all; `exact` says which of them are right, `wide` what they have, by which they are ranked. It is
 * empty where nothing is a word. `shown` has what is marked.
 */
export function wordsCtes(
  { words, any, last, method }: Text,
  { userId }: Pick<Filters, 'userId'>,
): RawBuilder<unknown> {
  const tenant = sql`${`'\u0001${userId.replaceAll(/['\\]/g, '$&$&')}'`}::tsquery`
  const word = last?.word ?? null
  const stems = last === undefined ? null : stemsOf(last.word)
  const length = word === null ? 0 : [...word].length
  const beginning = method === 'any' ? null : word
  return sql`
    parts as materialized (
      select websearch_to_tsquery(${language}, ${method === 'any' ? any : words}) as whole,
             websearch_to_tsquery(${language}, ${last?.head ?? ''}) as head,
             (${quoted(sql`lower(${beginning}::text)`)} || ':*')::tsquery as beginning,
             (${quoted(sql`lower(${word}::text)`)} || ':*')::tsquery as marked,
             (select string_agg(${quoted(sql`lower(stem)`)}, '|')::tsquery
                from unnest(${stems}::text[]) stem) as stems,
             websearch_to_tsquery(${language}, ${any}) as shown
    ), queries as materialized (
      select p.*, coalesce(p.whole || (p.head && p.beginning), p.whole) as exact,
             coalesce(p.head && (p.beginning || p.stems), p.head && p.beginning) as more,
             numnode(p.head) = 0 as alone,
             ${length}::int <= case when numnode(p.head) = 0 then ${SHORT_ALONE}::int else ${SHORT_AFTER_WORDS}::int end as short
        from parts p
       where numnode(p.whole) > 0
    ), words as materialized (
      select alone, whole, exact, coalesce(whole || more, whole) as wide, ${tenant} && whole as whole_indexed,
             case when more is not null then ${tenant} && head end as before_indexed,
             case when more is not null and not short then ${tenant} && more end as more_indexed,
             case when more is null then ${tenant} && whole when not short then ${tenant} && (whole || more)
                  when alone then ${tenant} else ${tenant} && (whole || head) end as walked
        from queries
    ), shown as materialized (
      select coalesce(shown || marked || stems, shown || marked, shown, ''::tsquery) as marks from parts
    )`
}

const isTrue = () => sql`true`

/** A word that is stemmed further than the query's last was typed is looked for in the text itself. */
const isRight = (pattern: string | null) => (table: string, body: RawBuilder<unknown>) =>
  sql`(ts_match_vq(${sql.ref(`${table}.words`)}, (select exact from words))
       or coalesce(${body} ~* ${pattern}::text, false))`

const isMore = (pattern: string | null) => (table: string, body: RawBuilder<unknown>) => {
  const words = sql.ref(`${table}.words`)
  return sql`(select count(*) < ${ENOUGH}::int from whole_hits)
      and not ts_match_vq(${words}, (select whole from words)) and ts_match_vq(${words}, (select wide from words))
      and ${isRight(pattern)(table, body)}`
}

type Condition = (table: string, body: RawBuilder<unknown>) => RawBuilder<unknown>

/**
 * CTEs, of which `asked` has what the index is asked for rows with a word that begins as the last one. It reads all words
 * of all users that begin so: where few rows have the words before, or the user has few at all, those are looked at.
 */
const askedCtes = (filters: Filters) => {
  const isFew = (rows: RawBuilder<unknown>) =>
    sql`(select count(*) <= ${FEW}::int from (select from ${t.messages} m where ${rows} limit ${FEW + 1}::bigint) m)`
  return sql`
    before_last as materialized (
      select w.*, case when more_indexed is null then true
                       when alone then ${isFew(sql`m.user_id = ${filters.userId}`)}
                       else ${isFew(sql`m.words @@ (select before_indexed from words) and ${owned('m', filters)}`)} end as few
        from words w
    ), asked as materialized (
      select case when few then before_indexed else more_indexed end as of_analyses,
             -- the newest are completed then
             case when alone and more_indexed is null then null when few then before_indexed
                  else more_indexed end as of_messages
        from before_last
    )`
}

/** Rows with a word that begins as the last one, of those with the words before it. */
function withMore(text: Text, filters: Filters, condition: Condition): RawBuilder<unknown> {
  const rows = withWords(
    filters,
    { messages: sql`(select of_messages from asked)`, analyses: sql`(select of_analyses from asked)` },
    condition,
  )
  if (text.last === undefined || [...text.last.word].length > SHORT_ALONE) return rows
  return sql`
    ${rows}
    union all
    select 'message', m.thread_id, m.id, m.created_at, ${rank('m')}
      from (${newest(filters, RECENT)}) m
     where (select alone from words) and ${messageFilters('m', filters)} and ${condition('m', messageText('m'))}`
}

/** A column of `words`. */
const both = (query: string) => {
  const asked = sql`(select ${sql.raw(query)} from words)`
  return { messages: asked, analyses: asked }
}

/** Rows with the words of a query. */
function withWords(
  filters: Filters,
  asked: { messages: RawBuilder<unknown>; analyses: RawBuilder<unknown> },
  condition: Condition,
): RawBuilder<unknown> {
  return sql`
    select 'message' as type, m.thread_id, m.id, m.created_at as at, ${rank('m')} as score
      from ${t.messages} m
     where m.words @@ ${asked.messages} and ${owned('m', filters)} and ${messageFilters('m', filters)}
       and ${condition('m', messageText('m'))}
    union all
    select 'analysis', a.session_id, a.session_id, a.updated_at, ${rank('a')}
      from ${t.chainAnalysisResults} a
     where a.words @@ ${asked.analyses} and ${owned('a', filters)} and ${analysisFilters('a', filters)}
       and ${condition('a', sql`a.text`)}`
}

/** Long texts have more of all words: the rank is divided by the logarithm of their length. */
const rank = (table: string) =>
  sql`ts_rank(${sql.ref(`${table}.words`)}, (select wide from words), 1)::float8`

/** The newest rows, up to a number and a size as stored, with their text. */
function newest({ userId, threadId }: Filters, { rows, bytes }: typeof SUBSTRING): RawBuilder<unknown> {
  const [place, order] =
    threadId === undefined
      ? [sql``, sql`m.id desc`]
      : [sql`and m.thread_id = ${threadId}::uuid`, sql`m.seq desc`]
  const size = (column: string) => sql`coalesce(pg_column_size(${sql.ref(`m.${column}`)}), 0)`
  return sql`
    select m.* from (
      select m.thread_id, m.id, m.role, m.created_at, m.words, m.text, m.content, m.tool_name, m.tool_output,
             sum(${size('text')} + ${size('content')} + ${size('tool_output')}) over (order by ${order}) as bytes
        from (select * from ${t.messages} m where m.user_id = ${userId} ${place}
               -- in a query of its own, or the plan for a known number reads and sorts all rows of the user
               order by ${order} limit (select ${rows}::bigint)) m
    ) m
     where m.bytes <= ${bytes}::bigint`
}

const analyses = (filters: Filters) => sql`
    select 'analysis' as type, a.session_id as thread_id, a.session_id as id, a.updated_at as at, a.text as body
      from ${t.chainAnalysisResults} a
     where a.user_id = ${filters.userId} and ${analysisFilters('a', filters)}
     order by a.session_id desc limit ${MAX_ANALYSES}::bigint`

const bodies = (filters: Filters, bounds: typeof SUBSTRING) => sql`
    select 'message' as type, m.thread_id, m.id, m.created_at as at, ${messageText('m')} as body
      from (${newest(filters, bounds)}) m
     where ${messageFilters('m', filters)}
    union all
    (${analyses(filters)})`

const pattern = (term: string) => `%${term.replaceAll(/[\\%_]/g, '\\$&')}%`
const patterns = (terms: readonly string[]) =>
  sql`(select array_agg(lower(term)) from unnest(${terms.map(pattern)}::text[]) term)::text[]`

/** What is looked for, when it is one thing. */
function onlyTerm({ alternatives }: Text): string | undefined {
  const [first, ...more] = alternatives
  const isOne = more.length === 0 && first?.terms.length === 1 && first.without.length === 0
  return isOne ? first.terms[0] : undefined
}

/** The newest rows with a substring, all of the same score. */
function newestWith(term: string, filters: Filters, { limit, below }: Wanted): RawBuilder<unknown> {
  const isBelow = (id: RawBuilder<unknown>) =>
    sql`(${below ?? null}::uuid is null or ${id} < ${below ?? null}::uuid)`
  const text = sql`lower(${pattern(term)}::text)`
  return sql`
    select x.type, x.thread_id, x.id, x.at, 1::float8 as score from (
      (select 'message' as type, m.thread_id, m.id, m.created_at as at
         from (${newest(filters, SUBSTRING)}) m
        where ${messageFilters('m', filters)} and ${isBelow(sql`m.id`)}
          and lower(${messageText('m')}) like ${text} and ${inThread(sql`m.thread_id`, filters)}
        order by m.id desc limit ${limit}::bigint)
      union all
      (select a.type, a.thread_id, a.id, a.at from (${analyses(filters)}) a
        where ${isBelow(sql`a.id`)} and lower(a.body) like ${text} and ${inThread(sql`a.thread_id`, filters)}
        order by a.id desc limit ${limit}::bigint)
    ) x`
}

/** Rows with all substrings of an alternative; first those with the whole query as it is. */
function contained({ text, alternatives }: Text, filters: Filters): RawBuilder<unknown> {
  const fits = alternatives.map(
    ({ terms, without }) => sql`(b.body like all (${patterns(terms)})
                 and not coalesce(b.body like any (${patterns(without)}), false))`,
  )
  return sql`
    select b.type, b.thread_id, b.id, b.at,
           case when strpos(b.body, lower(${text}::text)) > 0 then 1 else 0.5 end::float8 as score
      from (select b.type, b.thread_id, b.id, b.at, lower(b.body) as body from (${bodies(filters, SUBSTRING)}) b
            offset 0) b
     where ${fits.length === 0 ? sql`false` : sql.join(fits, sql` or `)}`
}

/** Rows with a stretch of words that is spelt much like the query. */
function resembling({ text, trigrams }: Text, filters: Filters): RawBuilder<unknown> {
  const similarity = sql.id(trigrams?.schema ?? 'public', 'word_similarity')
  return sql`
    select * from (
      select b.type, b.thread_id, b.id, b.at, ${similarity}(${text}::text, b.body)::float8 as score
        from (${bodies(filters, SIMILAR)}) b offset 0
    ) b
     where b.score >= ${LEAST_SIMILARITY}::float8`
}
