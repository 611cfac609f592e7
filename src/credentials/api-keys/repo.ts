import { sql } from 'kysely'
import { type Db, t } from '../../db/schema.ts'
import type { Sealed } from '../vault.ts'

export type KeyRow = Sealed & { userId: string; provider: string; createdAt: Date; updatedAt: Date }

const selected = sql`user_id as "userId", provider, token, key_id as "keyId", created_at as "createdAt",
  updated_at as "updatedAt"`

/** Stores a key in the place of what is there. Undefined when it would be one more than `limit`. */
export async function putKey(
  db: Db,
  userId: string,
  provider: string,
  { token, keyId }: Sealed,
  limit: number,
): Promise<(KeyRow & { created: boolean }) | undefined> {
  const { rows } = await sql<KeyRow & { created: boolean }>`
    /* credentials.put_key */
    insert into ${t.userApiKeys} as k (user_id, provider, token, key_id)
    select ${userId}, ${provider}, ${token}, ${keyId}
     where exists (select from ${t.userApiKeys} where user_id = ${userId} and provider = ${provider})
        or (select count(*) from ${t.userApiKeys} where user_id = ${userId}) < ${limit}::int
    on conflict (user_id, provider) do update
      set token = excluded.token, key_id = excluded.key_id, updated_at = now()
    -- a row that an update has made names the transaction that did it
    returning ${selected}, xmax = 0 as created`.execute(db)
  return rows[0]
}

/** By provider. */
export async function listKeys(db: Db, userId: string): Promise<KeyRow[]> {
  const { rows } = await sql<KeyRow>`
    /* credentials.list_keys */
    select ${selected} from ${t.userApiKeys} where user_id = ${userId} order by provider`.execute(db)
  return rows
}

export async function findKey(db: Db, userId: string, provider: string): Promise<KeyRow | undefined> {
  const { rows } = await sql<KeyRow>`
    /* credentials.get_key */
    select ${selected} from ${t.userApiKeys} where user_id = ${userId} and provider = ${provider}`.execute(db)
  return rows[0]
}

/** False when there was none. */
export async function deleteKey(db: Db, userId: string, provider: string): Promise<boolean> {
  const { numAffectedRows } = await sql`
    /* credentials.delete_key */
    delete from ${t.userApiKeys} where user_id = ${userId} and provider = ${provider}`.execute(db)
  return numAffectedRows === 1n
}
