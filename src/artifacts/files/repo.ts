import { type Selectable, sql } from 'kysely'
import { decodeText, encodeJsonb, encodeText } from '../../core/json.ts'
import { mergePatch } from '../../db/merge-patch.ts'
import { type Db, type FilesTable, t } from '../../db/schema.ts'
import type { FilePatch, FileQuery, UserFile } from '../schema.ts'

const columns = [
  'user_id',
  'id',
  'name',
  'sha256',
  'mime',
  'size',
  'flow_id',
  'expires_at',
  'meta',
  'created_at',
] as const
const selected = sql.join(columns.map((column) => sql.ref(column)))
// gone for its user, though the collector has not been there yet
const alive = sql<boolean>`(expires_at is null or expires_at > now())`

type Row = Pick<Selectable<FilesTable>, (typeof columns)[number]>

function toFile(row: Row): UserFile {
  return {
    id: row.id,
    userId: row.user_id,
    name: decodeText(row.name),
    mime: row.mime,
    size: row.size,
    sha256: row.sha256,
    flowId: row.flow_id,
    expiresAt: row.expires_at,
    meta: row.meta,
    createdAt: row.created_at,
  }
}

export type FileRow = Pick<UserFile, 'id' | 'sha256' | 'mime' | 'size' | 'flowId' | 'expiresAt' | 'meta'>

/**
 * The number that the next file of this name gets: 0 when the name itself is free, else one more than the highest.
 * Files that have expired keep theirs until they are collected.
 */
export async function nextNumber(db: Db, userId: string, askedName: string): Promise<number> {
  const name = encodeText(askedName)
  const { rows } = await sql<{ n: number }>`
    /* files.next_number */
    select coalesce((select n from ${t.files} where user_id = ${userId} and asked_name = ${name}
                      order by n desc limit 1), 0) + 1 as n
     where exists (select from ${t.files} where user_id = ${userId} and name = ${name})`.execute(db)
  return rows[0]?.n ?? 0
}

export type FileName = { askedName: string; n: number; name: string }

/** Undefined when the user has a file of this id or this name. The upload of this id, if there is one, ends with it. */
export async function insertFile(
  db: Db,
  userId: string,
  { id, sha256, mime, size, flowId, expiresAt, meta }: FileRow,
  { askedName, n, name }: FileName,
): Promise<UserFile | undefined> {
  const { rows } = await sql<Row>`
    /* files.create */
    with file as (
      insert into ${t.files} (user_id, id, name, asked_name, n, sha256, mime, size, flow_id, expires_at, meta)
      values (${userId}, ${id}::uuid, ${encodeText(name)}, ${encodeText(askedName)}, ${n}::int, ${sha256}, ${mime},
              ${size}::bigint, ${flowId}::uuid, ${expiresAt}::timestamptz, ${encodeJsonb(meta)}::jsonb)
      on conflict do nothing
      returning ${selected}
    ), ended as (
      delete from ${t.uploads} where user_id = ${userId} and id in (select id from file)
    )
    select * from file`.execute(db)
  return rows[0] && toFile(rows[0])
}

/** Undefined when there is no such file, or it has expired. */
export async function findFile(db: Db, userId: string, id: string): Promise<UserFile | undefined> {
  const { rows } = await sql<Row>`
    /* files.get */
    select ${selected} from ${t.files} where user_id = ${userId} and id = ${id}::uuid and ${alive}`.execute(
    db,
  )
  return rows[0] && toFile(rows[0])
}

/** Newest first, `limit` at most, older than `before`. */
export async function listFiles(
  db: Db,
  userId: string,
  { limit, before, flowId, name }: FileQuery & { limit: number; before: string | undefined },
): Promise<UserFile[]> {
  let select = db
    .selectFrom('files')
    .select(columns)
    .modifyFront(sql`/* files.list */`)
    .where('user_id', '=', userId)
    .where(alive)
  if (flowId !== undefined) select = select.where('flow_id', '=', flowId)
  if (name !== undefined) select = select.where('name', '=', encodeText(name))
  if (before !== undefined) select = select.where('id', '<', before)
  return (await select.orderBy('id', 'desc').limit(limit).execute()).map(toFile)
}

/** Undefined when there is no such file. @throws unique_violation (23505) for a name that another file has */
export async function updateFile(
  db: Db,
  userId: string,
  id: string,
  patch: FilePatch,
  renamed: FileName | undefined,
): Promise<UserFile | undefined> {
  const { flowId, expiresAt, meta } = patch
  const changes = [
    ...(renamed === undefined
      ? []
      : [
          sql`name = ${encodeText(renamed.name)}`,
          sql`asked_name = ${encodeText(renamed.askedName)}`,
          sql`n = ${renamed.n}::int`,
        ]),
    ...(flowId === undefined ? [] : [sql`flow_id = ${flowId}::uuid`]),
    ...(expiresAt === undefined ? [] : [sql`expires_at = ${expiresAt}::timestamptz`]),
    ...(meta === undefined ? [] : [sql`meta = ${mergePatch(sql`meta`, meta)}`]),
  ]
  const { rows } = await sql<Row>`
    /* files.update */
    update ${t.files} set ${sql.join(changes)}
     where user_id = ${userId} and id = ${id}::uuid and ${alive} returning ${selected}`.execute(db)
  return rows[0] && toFile(rows[0])
}

/** Whether there was one. Its bytes stay until they are collected. */
export async function deleteFile(db: Db, userId: string, id: string): Promise<boolean> {
  const { numAffectedRows } = await sql`
    /* files.delete */
    delete from ${t.files} where user_id = ${userId} and id = ${id}::uuid`.execute(db)
  return (numAffectedRows ?? 0n) > 0n
}
