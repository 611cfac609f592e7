import { sql } from 'kysely'
import { textArray } from '../../db/arrays.ts'
import { type Db, t } from '../../db/schema.ts'
import type { VariableType } from '../schema.ts'
import type { Sealed } from '../vault.ts'

export type VariableRow = Sealed & {
  userId: string
  id: string
  name: string
  type: VariableType
  defaultFields: string[]
  createdAt: Date
  updatedAt: Date
}

const selected = sql`user_id as "userId", id, name, type, token, key_id as "keyId", default_fields as "defaultFields",
  created_at as "createdAt", updated_at as "updatedAt"`

export type NewRow = Pick<VariableRow, 'id' | 'name' | 'type' | 'token' | 'keyId' | 'defaultFields'>

/** Undefined when the user has a variable of this name. */
export async function insertVariable(db: Db, userId: string, row: NewRow): Promise<VariableRow | undefined> {
  const { rows } = await sql<VariableRow>`
    /* variables.create */
    insert into ${t.variables} (user_id, id, name, type, token, key_id, default_fields)
    values (${userId}, ${row.id}::uuid, ${row.name}, ${row.type}, ${row.token}, ${row.keyId},
            ${textArray(row.defaultFields)}::text[])
    on conflict (user_id, name) do nothing
    returning ${selected}`.execute(db)
  return rows[0]
}

/** By name, `limit` at most, behind `after`. */
export async function listVariables(
  db: Db,
  userId: string,
  after: string,
  limit: number,
): Promise<VariableRow[]> {
  const { rows } = await sql<VariableRow>`
    /* variables.list */
    select ${selected} from ${t.variables} where user_id = ${userId} and name > ${after}
     order by name limit ${limit}::int`.execute(db)
  return rows
}

export async function findVariable(db: Db, userId: string, id: string): Promise<VariableRow | undefined> {
  const { rows } = await sql<VariableRow>`
    /* variables.get */
    select ${selected} from ${t.variables} where user_id = ${userId} and id = ${id}::uuid`.execute(db)
  return rows[0]
}

export async function findByName(db: Db, userId: string, name: string): Promise<VariableRow | undefined> {
  const { rows } = await sql<VariableRow>`
    /* variables.by_name */
    select ${selected} from ${t.variables} where user_id = ${userId} and name = ${name}`.execute(db)
  return rows[0]
}

export type Changes = {
  name?: string
  type?: VariableType
  sealed?: Sealed
  defaultFields?: string[]
}

/** Undefined when there is none, or when it is a credential that would become generic with its value. */
export async function updateVariable(
  db: Db,
  userId: string,
  id: string,
  { name, type, sealed, defaultFields }: Changes,
): Promise<VariableRow | undefined> {
  const token = sql`${sealed?.token ?? null}::text`
  const fields = defaultFields === undefined ? null : textArray(defaultFields)
  const { rows } = await sql<VariableRow>`
    /* variables.update */
    update ${t.variables}
       set name = coalesce(${name ?? null}::text, name), type = coalesce(${type ?? null}::text, type),
           token = coalesce(${token}, token),
           key_id = case when ${token} is null then key_id else ${sealed?.keyId ?? null}::text end,
           default_fields = coalesce(${fields}::text[], default_fields), updated_at = now()
     where user_id = ${userId} and id = ${id}::uuid
       and (${token} is not null or type = coalesce(${type ?? null}::text, type) or type = 'generic')
    returning ${selected}`.execute(db)
  return rows[0]
}

/** False when there was none. */
export async function deleteVariable(db: Db, userId: string, id: string): Promise<boolean> {
  const { numAffectedRows } = await sql`
    /* variables.delete */
    delete from ${t.variables} where user_id = ${userId} and id = ${id}::uuid`.execute(db)
  return numAffectedRows === 1n
}
