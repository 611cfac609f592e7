import { type Selectable, sql } from 'kysely'
import { camelKeys, snakeKeys } from '../core/case.ts'
import { decodeText, encodeJsonb, encodeText } from '../core/json.ts'
import { type ChainAnalysisResultsTable, type Db, t } from '../db/schema.ts'
import { renderAnalysis } from './render.ts'
import {
  type Analysis,
  type AnalysisContent,
  type AnalysisItem,
  type AnalysisVersion,
  type ChainLink,
  EMPTY_ANALYSIS,
  MAX_VERSION,
  type StoredVersion,
} from './schema.ts'

const columns = [
  'session_id',
  'vulnerabilities',
  'chain_links',
  'problem_behavior',
  'prompting_event',
  'consequences',
  'solutions',
  'summary',
  'version',
  'created_at',
  'updated_at',
] as const

type ResultRow = Pick<Selectable<ChainAnalysisResultsTable>, (typeof columns)[number]>

const selected = sql.join(columns.map((column) => sql.ref(column)))

const toText = (text: string | null) => (text === null ? null : decodeText(text))
const fromText = (text: string | null) => (text === null ? null : encodeText(text))

const toAnalysis = (row: ResultRow): Analysis => ({
  sessionId: row.session_id,
  version: row.version,
  vulnerabilities: row.vulnerabilities as AnalysisItem[],
  chainLinks: row.chain_links as ChainLink[],
  problemBehavior: toText(row.problem_behavior),
  promptingEvent: toText(row.prompting_event),
  consequences: toText(row.consequences),
  solutions: row.solutions as AnalysisItem[],
  summary: toText(row.summary),
  createdAt: row.created_at,
  updatedAt: row.updated_at,
})

/**
 * The kind of a thread whose analysis is going to be written: who does that too waits for the end of the transaction.
 * It is the thread's row that is locked, for there may be no result yet. Undefined when the user has no such thread.
 */
export async function lockThread(tx: Db, userId: string, id: string): Promise<string | undefined> {
  const { rows } = await sql<{ kind: string }>`
    /* analyses.lock */
    select kind from ${t.threads} where user_id = ${userId} and id = ${id}::uuid for no key update`.execute(
    tx,
  )
  return rows[0]?.kind
}

/** Undefined when the user has no such thread. */
export async function findKind(db: Db, userId: string, id: string): Promise<string | undefined> {
  const { rows } = await sql<{ kind: string }>`
    /* analyses.kind */
    select kind from ${t.threads} where user_id = ${userId} and id = ${id}::uuid`.execute(db)
  return rows[0]?.kind
}

export async function findAnalysis(db: Db, userId: string, id: string): Promise<Analysis | undefined> {
  const { rows } = await sql<ResultRow>`
    /* analyses.get */
    select ${selected} from ${t.chainAnalysisResults}
     where user_id = ${userId} and session_id = ${id}::uuid`.execute(db)
  return rows[0] && toAnalysis(rows[0])
}

/**
 * Makes the first analysis of a session, or the first after one that was deleted, whose numbers go on. Under
 * {@link lockThread}, and there is none.
 */
export async function insertAnalysis(
  tx: Db,
  userId: string,
  id: string,
  content: AnalysisContent,
): Promise<Analysis> {
  const { rows } = await sql<ResultRow>`
    /* analyses.create */
    insert into ${t.chainAnalysisResults}
      (user_id, session_id, version, vulnerabilities, chain_links, problem_behavior, prompting_event, consequences,
       solutions, summary, text)
    select ${userId}, ${id}::uuid,
           1 + coalesce((select max(version) from ${t.chainAnalysisVersions}
                          where user_id = ${userId} and session_id = ${id}::uuid), 0),
           ${encodeJsonb(content.vulnerabilities)}::jsonb, ${encodeJsonb(content.chainLinks)}::jsonb,
           ${fromText(content.problemBehavior)}::text, ${fromText(content.promptingEvent)}::text,
           ${fromText(content.consequences)}::text, ${encodeJsonb(content.solutions)}::jsonb,
           ${fromText(content.summary)}::text, ${renderAnalysis(content)}::text
    returning ${selected}`.execute(tx)
  return toAnalysis(rows[0] as ResultRow)
}

/** Makes the next version and keeps the one that is there. Under {@link lockThread}. */
export async function replaceAnalysis(
  tx: Db,
  userId: string,
  { sessionId, version, createdAt: _, updatedAt: __, ...current }: Analysis,
  content: AnalysisContent,
): Promise<Analysis> {
  // the embedding is that of another text now: without its model it is not searched, and is made anew
  const { rows } = await sql<ResultRow>`
    /* analyses.replace */
    with kept as (
      insert into ${t.chainAnalysisVersions} (user_id, session_id, version, result, written_at)
      select user_id, session_id, version, ${encodeJsonb(snakeKeys(current))}::jsonb, updated_at
        from ${t.chainAnalysisResults}
       where user_id = ${userId} and session_id = ${sessionId}::uuid and version = ${version}
    )
    update ${t.chainAnalysisResults}
       set version = version + 1, updated_at = greatest(updated_at, now()), embedding_model = null,
           vulnerabilities = ${encodeJsonb(content.vulnerabilities)}::jsonb,
           chain_links = ${encodeJsonb(content.chainLinks)}::jsonb,
           problem_behavior = ${fromText(content.problemBehavior)}::text,
           prompting_event = ${fromText(content.promptingEvent)}::text,
           consequences = ${fromText(content.consequences)}::text,
           solutions = ${encodeJsonb(content.solutions)}::jsonb,
           summary = ${fromText(content.summary)}::text, text = ${renderAnalysis(content)}::text
     where user_id = ${userId} and session_id = ${sessionId}::uuid and version = ${version}
    returning ${selected}`.execute(tx)
  return toAnalysis(rows[0] as ResultRow)
}

/** Removes the analysis and its earlier versions; its number stays taken. Under {@link lockThread}. */
export async function deleteAnalysis(
  tx: Db,
  userId: string,
  { sessionId, version }: Analysis,
): Promise<void> {
  await sql`
    /* analyses.delete */
    with earlier as (
      delete from ${t.chainAnalysisVersions} where user_id = ${userId} and session_id = ${sessionId}::uuid
    ), result as (
      delete from ${t.chainAnalysisResults} where user_id = ${userId} and session_id = ${sessionId}::uuid
      returning updated_at
    )
    insert into ${t.chainAnalysisVersions} (user_id, session_id, version, written_at)
    select ${userId}, ${sessionId}::uuid, ${version}, updated_at from result`.execute(tx)
}

type VersionRow = { version: number; written_at: Date; replaced_at: Date | null }

const toVersion = (row: VersionRow): AnalysisVersion => ({
  version: row.version,
  writtenAt: row.written_at,
  replacedAt: row.replaced_at,
})

/** Newest first, that which is in force among them; `limit` at most, below `before`. */
export async function listVersions(
  db: Db,
  userId: string,
  id: string,
  { limit, before }: { limit: number; before: number | undefined },
): Promise<AnalysisVersion[]> {
  const below = before ?? MAX_VERSION
  const { rows } = await sql<VersionRow>`
    /* analyses.versions */
    select version, updated_at as written_at, null::timestamptz as replaced_at from ${t.chainAnalysisResults}
     where user_id = ${userId} and session_id = ${id}::uuid and version < ${below}::int
    union all
    (select version, written_at, replaced_at from ${t.chainAnalysisVersions}
      where user_id = ${userId} and session_id = ${id}::uuid and version < ${below}::int and result is not null
      order by version desc limit ${limit})
    order by version desc limit ${limit}`.execute(db)
  return rows.map(toVersion)
}

/** One of the versions that were replaced. */
export async function findEarlier(
  db: Db,
  userId: string,
  id: string,
  version: number,
): Promise<StoredVersion | undefined> {
  const { rows } = await sql<VersionRow & { result: Record<string, unknown> }>`
    /* analyses.version */
    select version, written_at, replaced_at, result from ${t.chainAnalysisVersions}
     where user_id = ${userId} and session_id = ${id}::uuid and version = ${version} and result is not null`.execute(
    db,
  )
  const [row] = rows
  // in the order of fields that all have
  return (
    row && { sessionId: id, ...toVersion(row), analysis: { ...EMPTY_ANALYSIS, ...camelKeys(row.result) } }
  )
}
