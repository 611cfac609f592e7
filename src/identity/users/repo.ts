import { type Selectable, sql } from 'kysely'
import { type Db, t, type UsersTable } from '../../db/schema.ts'
import type { User, UserPatch, UserQuery } from '../schema.ts'

/** What a sign-in needs to know. */
export type Account = { user: User; passwordHash: string | null }

/** What every request needs to know of its user. JSON-safe: it is cached. */
export type Standing = Pick<User, 'isActive' | 'isSuperuser' | 'provider'> & {
  /** Whether the data of this user was erased. Then there may be no row in `users`, which is why the rest says nothing. */
  isErased?: boolean
}

export type UserRow = Pick<
  User,
  'id' | 'provider' | 'username' | 'email' | 'name' | 'profileImage' | 'isSuperuser'
> & {
  passwordHash: string | null
}

const columns = [
  'id',
  'provider',
  'username',
  'email',
  'name',
  'profile_image',
  'is_active',
  'is_superuser',
  'created_at',
  'updated_at',
  'last_login_at',
] as const
const selected = sql.join(columns.map((column) => sql.ref(column)))

type Row = Pick<Selectable<UsersTable>, (typeof columns)[number]>

function toUser(row: Row): User {
  return {
    id: row.id,
    provider: row.provider as User['provider'],
    username: row.username,
    email: row.email,
    name: row.name,
    profileImage: row.profile_image,
    isActive: row.is_active,
    isSuperuser: row.is_superuser,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
    lastLoginAt: row.last_login_at,
  }
}

/** Undefined when the id, the username or the email is taken. */
export async function insertUser(db: Db, user: UserRow): Promise<User | undefined> {
  const { rows } = await sql<Row>`
    /* users.create */
    insert into ${t.users} (id, provider, username, email, name, profile_image, password_hash, is_superuser)
    values (${user.id}, ${user.provider}, ${user.username}, ${user.email}, ${user.name}, ${user.profileImage},
            ${user.passwordHash}, ${user.isSuperuser})
    on conflict do nothing
    returning ${selected}`.execute(db)
  return rows[0] && toUser(rows[0])
}

export async function findUser(db: Db, id: string): Promise<User | undefined> {
  const { rows } = await sql<Row>`
    /* users.get */ select ${selected} from ${t.users} where id = ${id}`.execute(db)
  return rows[0] && toUser(rows[0])
}

export async function findStanding(db: Db, id: string): Promise<Standing | undefined> {
  const { rows } = await sql<Required<Standing>>`
    /* users.standing */
    select coalesce(u.is_active, false) as "isActive", coalesce(u.is_superuser, false) as "isSuperuser",
           coalesce(u.provider, 'local') as provider, e.user_id is not null as "isErased"
      from (select ${id}::text as id) i
      left join ${t.users} u on u.id = i.id
      left join ${t.erasedUsers} e on e.user_id = i.id
     where u.id is not null or e.user_id is not null`.execute(db)
  const [row] = rows
  if (row === undefined) return undefined
  const { isErased, ...standing } = row
  return isErased ? row : standing
}

/** Who signs in with a username or, if it has an @, an email address; both in lower case. */
export async function findAccount(db: Db, login: string): Promise<Account | undefined> {
  const column = sql.ref(login.includes('@') ? 'email' : 'username')
  const { rows } = await sql<Row & { password_hash: string | null }>`
    /* users.account */
    select ${selected}, password_hash from ${t.users} where ${column} = ${login} and provider = 'local'`.execute(
    db,
  )
  const row = rows[0]
  return row && { user: toUser(row), passwordHash: row.password_hash }
}

/** The user with this id, or username, or email: what an operator types. */
export async function findByAnyName(db: Db, name: string, login: string): Promise<User[]> {
  const { rows } = await sql<Row>`
    /* users.any_name */
    select ${selected} from ${t.users}
     where id = ${name} or (provider = 'local' and (username = ${login} or email = ${login}))
     order by id = ${name} desc`.execute(db)
  return rows.map(toUser)
}

export async function findPasswordHash(db: Db, id: string): Promise<string | null | undefined> {
  const { rows } = await sql<{ password_hash: string | null }>`
    /* users.password */ select password_hash from ${t.users} where id = ${id}`.execute(db)
  return rows[0]?.password_hash
}

/** False when there is no such user, or, with `replacing`, when its hash is another one by now. */
export async function setPasswordHash(
  db: Db,
  id: string,
  hash: string,
  replacing?: string,
): Promise<boolean> {
  const { numAffectedRows } = await sql`
    /* users.set_password */
    update ${t.users} set password_hash = ${hash}, updated_at = now()
     where id = ${id} and (${replacing ?? null}::text is null or password_hash = ${replacing ?? null}::text)`.execute(
    db,
  )
  return numAffectedRows === 1n
}

export async function noteLogin(db: Db, id: string): Promise<void> {
  await sql`/* users.login */ update ${t.users} set last_login_at = now() where id = ${id}`.execute(db)
}

/** Undefined when there is no such user. */
export async function updateUser(db: Db, id: string, patch: UserPatch): Promise<User | undefined> {
  const changes = {
    email: patch.email,
    name: patch.name,
    profile_image: patch.profileImage,
    is_active: patch.isActive,
    is_superuser: patch.isSuperuser,
  }
  const given = Object.fromEntries(Object.entries(changes).filter(([, value]) => value !== undefined))
  const row = await db
    .updateTable('users')
    .set({ ...given, updated_at: sql<Date>`now()` })
    .where('id', '=', id)
    .returning([...columns])
    .executeTakeFirst()
  return row && toUser(row)
}

export type UserKey = { createdAt: Date; id: string }

/** Newest first, `limit` at most, behind `after`. */
export async function listUsers(
  db: Db,
  { limit, after, q, isActive }: UserQuery & { limit: number; after: UserKey | undefined },
): Promise<User[]> {
  let select = db
    .selectFrom('users')
    .select([...columns])
    .modifyFront(sql`/* users.list */`)
  if (isActive !== undefined) select = select.where('is_active', '=', isActive)
  if (q !== undefined && q !== '') {
    const names = sql`concat_ws(' ', id, username, email, name)`
    select = select.where(sql<boolean>`strpos(lower(${names}), lower(${q})) > 0`)
  }
  if (after !== undefined)
    select = select.where(sql<boolean>`(created_at, id) < (${after.createdAt}::timestamptz, ${after.id})`)
  return (await select.orderBy('created_at', 'desc').orderBy('id', 'desc').limit(limit).execute()).map(toUser)
}

/** Whether there is any user who can sign in here. */
export async function hasAccounts(db: Db): Promise<boolean> {
  const { rows } =
    await sql`/* users.any */ select 1 from ${t.users} where provider = 'local' limit 1`.execute(db)
  return rows.length > 0
}
