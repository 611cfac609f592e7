import { type RawBuilder, sql } from 'kysely'
import { type Db, t } from '../db/schema.ts'
import { PLANNED_ANEW } from '../db/statements.ts'
import type { Role } from '../messages/schema.ts'
import type { ThreadKind } from '../threads/schema.ts'
import { excerpt, headline } from './excerpts/repo.ts'
import { type HitKey, type Meaning, nearCtes } from './meaning/repo.ts'
import type { SearchHit } from './schema.ts'
import { type Filters, foundCtes, messageText, type Text, wordsCtes } from './text/repo.ts'

export type PageOptions = { limit: number; after: HitKey | undefined }

/** A hit whose snippet is still as the database gives it. */
export type RawHit = Omit<SearchHit, 'snippet'> & {
  excerpt: string
  /** What is to be marked of it; null: the database has marked it. */
  marking: 'substring' | 'similar' | null
  key: HitKey
}

type HitRow = {
  type: 'message' | 'analysis'
  id: string
  at: Date
  score: number
  thread_id: string
  title: string | null
  kind: string
  archived_at: Date | null
  message_id: string | null
  seq: number | null
  role: string | null
  tool_name: string | null
  version: number | null
  excerpt: string
}

/** A page of the rows in which a text is found, best first, newest first among equals; `limit` rows at most. */
export async function searchText(
  db: Db,
  text: Text,
  filters: Filters,
  options: PageOptions,
): Promise<RawHit[]> {
  const order: Order = text.method === 'substring' ? 'id' : 'time'
  const { rows } = await sql<HitRow>`
    /* search.text */
    with ${wordsCtes(text, filters)}, ${foundCtes(text, filters, { limit: options.limit, below: options.after?.id })},
    ${pageCte('found', options, order)}
    ${hits(filters, shownText(text), order)}`.execute(db)
  return rows.map((row) => toHit(row, markingOf(text)))
}

/** A page of the rows nearest in meaning, nearest first. */
export async function searchMeaning(
  db: Db,
  text: Text,
  meaning: Meaning,
  filters: Filters,
  options: PageOptions,
): Promise<RawHit[]> {
  const { rows } = await sql<HitRow>`
    /* search.semantic */ ${sql.raw(PLANNED_ANEW)}
    with ${wordsCtes(text, filters)}, ${nearCtes(meaning, filters)}, ${pageCte('near', options)}
    ${hits(filters, headline)}`.execute(db)
  return rows.map((row) => toHit(row, null))
}

/** Of each list, how many of the best are merged. */
export const DEPTH = 200
/** What tempers the first places (Cormack, Clarke and Büttcher, 2009: Reciprocal Rank Fusion). */
export const RRF_K = 60

/**
 * A page of the best of both lists: a row's score is the sum of 1 / (60 + place) over the lists that have it.
 * @returns also whether the text was found at all
 */
export async function searchBoth(
  db: Db,
  text: Text,
  meaning: Meaning,
  filters: Filters,
  options: PageOptions,
): Promise<{ hits: RawHit[]; hasText: boolean }> {
  const { rows } = await sql<HitRow & { has_text: boolean }>`
    /* search.hybrid */ ${sql.raw(PLANNED_ANEW)}
    with ${wordsCtes(text, filters)}, ${foundCtes(text, filters, { limit: DEPTH, below: undefined })},
    ${nearCtes({ ...meaning, depth: DEPTH }, filters)},
    texts as (${ranked('found')}), meanings as (${ranked('near')}), fused as materialized (
      select coalesce(x.type, n.type) as type, coalesce(x.thread_id, n.thread_id) as thread_id,
             coalesce(x.id, n.id) as id, coalesce(x.at, n.at) as at,
             coalesce(1::float8 / (${RRF_K}::int + x.place), 0) + coalesce(1::float8 / (${RRF_K}::int + n.place), 0) as score
        from texts x full join meanings n on n.id = x.id and n.type = x.type
    ), ${pageCte('fused', options)}
    select h.*, exists (select from found) as has_text from (${hits(filters, shownText(text))}) h
     order by ${best('h')}`.execute(db)
  return { hits: rows.map((row) => toHit(row, markingOf(text))), hasText: rows[0]?.has_text ?? false }
}

type List = 'found' | 'near' | 'fused'

/** Of rows with the same score the newest first: by its time, or as its id says, in which order rows are found sooner. */
type Order = 'time' | 'id'

const best = (list: string, order: Order = 'time') => {
  const column = (name: string) => sql.ref(`${list}.${name}`)
  const time = order === 'time' ? sql`${column('at')} desc,` : sql``
  return sql`${column('score')} desc, ${time} ${column('id')} desc`
}

const ranked = (list: List) => sql`
  select l.*, row_number() over (order by ${best('l')}) as place
    from ${sql.table(list)} l order by ${best('l')} limit ${DEPTH}::bigint`

/** The page of a list. */
function pageCte(list: List, { limit, after }: PageOptions, order: Order = 'time'): RawBuilder<unknown> {
  const { score, at, id } = after ?? { score: 'Infinity', at: null, id: null }
  const isBelow =
    order === 'time' ? sql`(f.at, f.id) < (${at}::timestamptz, ${id}::uuid)` : sql`f.id < ${id}::uuid`
  return sql`page as materialized (
    select * from ${sql.table(list)} f
     where f.score < ${score}::float8
        or (f.score = ${score}::float8 and ${isBelow})
     order by ${best('f', order)} limit ${limit}::bigint)`
}

type Shown = (body: RawBuilder<unknown>, words: RawBuilder<unknown>) => RawBuilder<unknown>

/** The database marks words alone. */
const markingOf = ({ method }: Text) => (method === 'substring' || method === 'similar' ? method : null)

const shownText = (text: Text): Shown => {
  if (markingOf(text) === null) return headline
  const terms = text.alternatives.flatMap((alternative) => alternative.terms)
  return (body) => excerpt(body, text.method === 'substring' ? terms : [])
}

/** The page with what people see of it. */
function hits({ userId }: Filters, shown: Shown, order: Order = 'time'): RawBuilder<unknown> {
  const body = sql`case when p.type = 'message' then ${messageText('m')} else a.text end`
  return sql`
    select p.type, p.id, p.at, p.score, p.thread_id, th.title, th.kind, th.archived_at,
           m.message_id, m.seq, m.role, m.tool_name, a.version, ${shown(body, sql`coalesce(m.words, a.words)`)} as excerpt
      from page p
      join ${t.threads} th on th.user_id = ${userId} and th.id = p.thread_id
      left join ${t.messages} m on p.type = 'message' and m.user_id = ${userId} and m.id = p.id
      left join ${t.chainAnalysisResults} a
        on p.type = 'analysis' and a.user_id = ${userId} and a.session_id = p.id
     order by ${best('p', order)}`
}

function toHit(row: HitRow, marking: RawHit['marking']): RawHit {
  const { type, id, at, score, version } = row
  const thread = {
    id: row.thread_id,
    title: row.title,
    kind: row.kind as ThreadKind,
    archivedAt: row.archived_at,
  }
  const message =
    row.seq === null
      ? null
      : {
          id,
          messageId: row.message_id,
          seq: row.seq,
          role: row.role as Role,
          toolName: row.tool_name,
          createdAt: at,
        }
  const analysis = version === null ? null : { version, updatedAt: at }
  const key = { score: String(score), at, id }
  return { type, score, thread, message, analysis, excerpt: row.excerpt, marking, key }
}
