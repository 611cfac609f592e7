import { type RawBuilder, sql } from 'kysely'
import { type Db, t } from '../../../db/schema.ts'
import { isKept, type Kind, TABLE } from '../repo.ts'

/** Writes down that this model is the one in use from now on, if it is not so already. */
export async function chooseModel(db: Db, model: string): Promise<void> {
  await sql`
    /* embeddings.choose */
    insert into ${t.embeddingModels} as m (model) values (${model})
    on conflict (model) do update set chosen_at = clock_timestamp()
     where m.chosen_at < (select max(chosen_at) from ${t.embeddingModels})`.execute(db)
}

/** The one that came into use last. */
export async function findNewest(db: Db): Promise<string | undefined> {
  const { rows } = await sql<{ model: string }>`
    /* embeddings.newest */
    select model from ${t.embeddingModels} where chosen_at > 'epoch' order by chosen_at desc limit 1`.execute(
    db,
  )
  return rows[0]?.model
}

/** Whether rows say that they have embeddings of this model which went away with their column. */
export async function isLost(db: Db, model: string): Promise<boolean> {
  const { rows } = await sql`
    /* embeddings.is_lost */ select from ${t.embeddingModels} where model = ${model} and lost`.execute(db)
  return rows.length > 0
}

/**
 * Makes some of the rows wait that say so.
 * @param locked what of rows that somebody else has locked
 * @returns how many; none when all do, or, where locked ones are skipped, all others
 */
export async function resetLost(
  db: Db,
  kind: Kind,
  model: string,
  { limit, locked }: { limit: number; locked: 'skip' | 'wait' },
): Promise<number> {
  const { numAffectedRows } = await sql`
    /* embeddings.reset_lost */
    update ${TABLE[kind]} set embedding_model = null where ctid = any (array(
      select ctid from ${TABLE[kind]} where embedding_model = ${model} and embedding is null limit ${limit}
       for update ${locked === 'skip' ? sql`skip locked` : sql``}))`.execute(db)
  return Number(numAffectedRows ?? 0)
}

export async function clearLost(db: Db, model: string): Promise<void> {
  await sql`/* embeddings.clear_lost */ update ${t.embeddingModels} set lost = false where model = ${model}`.execute(
    db,
  )
}

/** Models that rows have embeddings of and that did not come into use after this one. */
export async function listOlderModels(db: Db, kind: Kind, model: string): Promise<string[]> {
  // from one model to the next along the index, however many rows each has
  const next = (after: RawBuilder<unknown>) => sql`
    select embedding_model as model from ${TABLE[kind]} where embedding_model > ${after} order by embedding_model limit 1`
  const { rows } = await sql<{ model: string }>`
    /* embeddings.older_models */
    with recursive models as (
      (${next(sql`''`)})
      union all
      select n.model from models m, lateral (${next(sql`m.model`)}) n
    )
    select m.model from models m
     where m.model <> ${model}
       and not exists (select from ${t.embeddingModels} later, ${t.embeddingModels} own
                        where later.model = m.model and own.model = ${model} and later.chosen_at > own.chosen_at)
     order by 1`.execute(db)
  return rows.map(({ model: older }) => older)
}

/**
 * How many rows no model has come to, or one of these.
 * @param until only messages that were stored by then; ids begin with their time (RFC 9562, version 7)
 */
export async function countRows(db: Db, kind: Kind, models: string[], until?: string): Promise<number> {
  const counted = sql`${isKept}${kind === 'message' && until !== undefined ? sql` and m.id < ${until}::uuid` : sql``}`
  const { rows } = await sql<{ rows: number }>`
    /* embeddings.count */
    select (select count(*) from ${TABLE[kind]} m where embedding_model is null and ${counted})::int
         + (select count(*) from ${TABLE[kind]} m where embedding_model = any(${models}::text[]) and ${counted})::int as rows`.execute(
    db,
  )
  return rows[0]?.rows ?? 0
}

/** How many rows of both kinds no model has come to, counted up to a limit for each. */
export async function countWaiting(db: Db, limit: number): Promise<number> {
  const waiting = (kind: Kind) => sql`
    select count(*)::int from (
      select from ${TABLE[kind]} m where embedding_model is null and ${isKept} limit ${limit}) w`
  const { rows } = await sql<{ waiting: number }>`
    /* embeddings.waiting */
    select (${waiting('message')}) + (${waiting('analysis')}) as waiting`.execute(db)
  return rows[0]?.waiting ?? 0
}

export type ModelRow = {
  /** Null: no model has come to these rows. */
  model: string | null
  rows: number
  /** Of those with a vector. */
  vectors: number
  /** Of those without a vector, how many have a text. */
  refused: number
}

/** Rows of both kinds by model; looks at each. */
export async function countByModel(db: Db, hasColumns: boolean): Promise<ModelRow[]> {
  const counts = (kind: Kind, text: RawBuilder<unknown>) => sql`
    select embedding_model as model, count(*)::int as rows,
           ${hasColumns ? sql`count(embedding)::int` : sql`0`} as vectors,
           ${
             hasColumns
               ? sql`(count(*) filter (where embedding is null and embedding_model is not null and ${text} ~ '\\S'))::int`
               : sql`0`
           } as refused
      from ${TABLE[kind]} group by 1`
  const { rows } = await sql<ModelRow>`
    /* embeddings.status */
    select model, sum(rows)::int as rows, sum(vectors)::int as vectors, sum(refused)::int as refused
      from (${counts('message', sql`${t.messageText}(text, content, tool_name, tool_output)`)}
            union all ${counts('analysis', sql.ref('text'))}) c
     group by 1 order by 1`.execute(db)
  return rows
}
