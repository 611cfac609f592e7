import { type Selectable, sql } from 'kysely'
import { newId } from '../../core/ids.ts'
import { textArray, uuidArray } from '../../db/arrays.ts'
import { type ApiKeysTable, type Db, t } from '../../db/schema.ts'
import type { ApiKey, ApiKeyQuery } from '../schema.ts'

const columns = [
  'user_id',
  'id',
  'name',
  'prefix',
  'scopes',
  'created_at',
  'expires_at',
  'revoked_at',
  'last_used_at',
  'total_uses',
] as const
const selected = sql.join(columns.map((column) => sql.ref(column)))

type Row = Pick<Selectable<ApiKeysTable>, (typeof columns)[number]>

function toApiKey(row: Row): ApiKey {
  return {
    id: row.id,
    userId: row.user_id,
    name: row.name,
    prefix: row.prefix,
    scopes: row.scopes,
    createdAt: row.created_at,
    expiresAt: row.expires_at,
    revokedAt: row.revoked_at,
    lastUsedAt: row.last_used_at,
    totalUses: row.total_uses,
  }
}

export type NewKeyRow = Pick<ApiKey, 'id' | 'userId' | 'name' | 'prefix' | 'scopes'> & {
  hash: Buffer
  expiresAt: string | null
}

/** Undefined when the user has `limit` keys that are not revoked. */
export async function insertKey(db: Db, key: NewKeyRow, limit: number): Promise<ApiKey | undefined> {
  const { rows } = await sql<Row>`
    /* api_keys.create */
    insert into ${t.apiKeys} (user_id, id, name, prefix, key_hash, scopes, expires_at)
    select ${key.userId}, ${key.id}::uuid, ${key.name}, ${key.prefix}, ${key.hash}::bytea, ${key.scopes}::text[],
           ${key.expiresAt}::timestamptz
     where (select count(*) from ${t.apiKeys} where user_id = ${key.userId} and revoked_at is null) < ${limit}::int
    returning ${selected}`.execute(db)
  return rows[0] && toApiKey(rows[0])
}

/** Newest first, `limit` at most, older than `before`. */
export async function listKeys(
  db: Db,
  userId: string,
  { limit, before, includeRevoked }: ApiKeyQuery & { limit: number; before: string | undefined },
): Promise<ApiKey[]> {
  let select = db
    .selectFrom('api_keys')
    .select([...columns])
    .modifyFront(sql`/* api_keys.list */`)
    .where('user_id', '=', userId)
  if (includeRevoked !== true) select = select.where('revoked_at', 'is', null)
  if (before !== undefined) select = select.where('id', '<', before)
  return (await select.orderBy('id', 'desc').limit(limit).execute()).map(toApiKey)
}

export async function findKey(db: Db, userId: string, id: string): Promise<ApiKey | undefined> {
  const { rows } = await sql<Row>`
    /* api_keys.get */
    select ${selected} from ${t.apiKeys} where user_id = ${userId} and id = ${id}::uuid`.execute(db)
  return rows[0] && toApiKey(rows[0])
}

/** The key's hash when it was not revoked yet. */
export async function revokeKey(db: Db, userId: string, id: string): Promise<Buffer | undefined> {
  const { rows } = await sql<{ key_hash: Buffer }>`
    /* api_keys.revoke */
    update ${t.apiKeys} set revoked_at = now()
     where user_id = ${userId} and id = ${id}::uuid and revoked_at is null returning key_hash`.execute(db)
  return rows[0]?.key_hash
}

/** Of all keys of the user, revoked or not. */
export async function listHashes(db: Db, userId: string): Promise<Buffer[]> {
  const { rows } = await sql<{ key_hash: Buffer }>`
    /* api_keys.hashes */ select key_hash from ${t.apiKeys} where user_id = ${userId}`.execute(db)
  return rows.map(({ key_hash }) => key_hash)
}

/** Whose key has this hash. Without a scope: this is how the user is found. */
export async function findByHash(db: Db, hash: Buffer): Promise<ApiKey | undefined> {
  const { rows } = await sql<Row>`
    /* api_keys.by_hash */
    select ${selected} from ${t.apiKeys} where key_hash = ${hash}::bytea and revoked_at is null`.execute(db)
  return rows[0] && toApiKey(rows[0])
}

export type KeyUse = { userId: string; id: string; uses: number; lastUsedAt: Date }

/**
 * Adds what was counted since the last time, for many keys of many users in one statement. The first use of a key on a day
 * (UTC) is written to the audit log.
 */
export async function addUses(db: Db, uses: KeyUse[]): Promise<void> {
  await sql`
    /* api_keys.uses */
    with used as (
      select k.user_id, k.id, u.uses, u.at, u.line_id, k.last_used_at as before
        from unnest(${textArray(uses.map(({ userId }) => userId))}::text[], ${uuidArray(uses.map(({ id }) => id))}::uuid[],
                    ${uses.map((use) => use.uses)}::bigint[],
                    ${uses.map((use) => use.lastUsedAt.toISOString())}::timestamptz[],
                    ${uuidArray(uses.map(() => newId()))}::uuid[])
             as u (user_id, id, uses, at, line_id)
        join ${t.apiKeys} k on k.user_id = u.user_id and k.id = u.id
       order by k.user_id, k.id for update of k
    ), counted as (
      update ${t.apiKeys} k
         set total_uses = k.total_uses + used.uses, last_used_at = greatest(k.last_used_at, used.at)
        from used where k.user_id = used.user_id and k.id = used.id
    )
    insert into ${t.auditLog} (user_id, id, at, actor_id, via, action, target)
    select user_id, line_id, at, user_id, 'key', 'api_key_used', 'api_key ' || id
      from used where before is null or (before at time zone 'utc')::date < (at at time zone 'utc')::date`.execute(
    db,
  )
}
