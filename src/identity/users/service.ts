import type { Static, TSchema } from 'typebox'
import type { Actor } from '../../audit/schema.ts'
import type { AuditService } from '../../audit/service.ts'
import { ThreadbaseError } from '../../core/errors.ts'
import { newId } from '../../core/ids.ts'
import { badCursor, decodeCursor, encodeCursor, type Page, toPage } from '../../core/pages.ts'
import { userOf } from '../../core/scope.ts'
import { parseInput } from '../../core/validate.ts'
import { isSqlState, UNIQUE_VIOLATION } from '../../db/errors.ts'
import type { Db } from '../../db/schema.ts'
import type { Checks } from '../checks.ts'
import type { Passwords } from '../passwords.ts'
import { NewAccount, Password, ProfilePatch, type User, UserPatch, UserQuery } from '../schema.ts'
import type { SessionService } from '../sessions/service.ts'
import * as repo from './repo.ts'

export type UserService = ReturnType<typeof createUserService>
export type { Standing } from './repo.ts'

type Parts = { audit: AuditService; checks: Checks; passwords: Passwords; sessions: SessionService }

const CURSOR = 'users'

/** Under which {@link repo.Standing} is remembered. */
export const standingKey = (userId: string) => `user:${userId}`

/**
 * The users of this installation, for operators: these functions take an actor, not a scope, and reach every user. What
 * they do is in the audit log.
 */
export function createUserService(db: Db, { audit, checks, passwords, sessions }: Parts) {
  /** By id. @throws not_found */
  async function getUser(id: string): Promise<User> {
    const user = await repo.findUser(db, userOf({ userId: id }))
    if (user === undefined) throw userNotFound(id)
    return user
  }

  async function change(id: string, patch: UserPatch): Promise<User> {
    const update = async (tx: Db) => {
      const user = await repo.updateUser(tx, userOf({ userId: id }), patch)
      if (user === undefined) throw userNotFound(id)
      return user
    }
    try {
      const user = patch.isActive === false ? await sessions.revokeAlong(id, update) : await update(db)
      await checks.forget(standingKey(id))
      return user
    } catch (error) {
      if (isSqlState(error, UNIQUE_VIOLATION)) throw emailTaken()
      throw error
    }
  }

  return {
    getUser,

    /**
     * Makes an account that signs in with a password.
     * @throws conflict when the username or the email is taken
     */
    async create(actor: Actor, input: NewAccount): Promise<User> {
      const account = parseProfile(NewAccount, input, 'user') as NewAccount
      const user = await repo.insertUser(db, {
        id: newId(),
        provider: 'local',
        username: account.username,
        email: account.email ?? null,
        name: account.name ?? null,
        profileImage: account.profileImage ?? null,
        isSuperuser: account.isSuperuser ?? false,
        passwordHash: await passwords.hash(account.password),
      })
      if (user === undefined)
        throw new ThreadbaseError('conflict', 'the username or the email is taken', {
          username: account.username,
        })
      await audit.record(actor, 'user_created', user.id)
      return user
    },

    /** By id, username or email. @throws not_found; conflict when it is the id of one and the name of another */
    async find(name: string): Promise<User> {
      const users = await repo.findByAnyName(db, name, normalizeLogin(name))
      const [user] = users
      if (user === undefined) throw userNotFound(name)
      if (users.length > 1)
        throw new ThreadbaseError('conflict', `${name} names more than one user: give the id`, {
          ids: users.map(({ id }) => id),
        })
      return user
    },

    /** All users, newest first. Pages by keyset: 50 a page, 200 at most. */
    async list(input: UserQuery = {}): Promise<Page<User>> {
      const query = parseInput(UserQuery, input, 'query') as UserQuery
      const limit = query.limit ?? 50
      const after = query.cursor === undefined ? undefined : readCursor(query.cursor)
      const rows = await repo.listUsers(db, { ...query, limit: limit + 1, after })
      return toPage(rows, limit, (last) => encodeCursor(CURSOR, [last.createdAt.getTime(), last.id]))
    },

    /**
     * Changes a user. One who is deactivated loses all sign-ins, and every credential is refused on all servers within
     * a second. @throws not_found; conflict when the email is taken
     */
    async update(actor: Actor, id: string, input: UserPatch): Promise<User> {
      const patch = parseProfile(UserPatch, input, 'patch') as UserPatch
      const before = await getUser(id)
      const user = await change(id, patch)
      if (before.isActive !== user.isActive)
        await audit.record(actor, user.isActive ? 'user_activated' : 'user_deactivated', id)
      if (before.isSuperuser !== user.isSuperuser)
        await audit.record(actor, user.isSuperuser ? 'user_promoted' : 'user_demoted', id)
      const { isActive: _, isSuperuser: __, ...profile } = patch
      if (Object.keys(profile).length > 0) await audit.record(actor, 'user_changed', id)
      return user
    },

    /**
     * What users change of themselves.
     * @throws not_found for a user without a row in `users`; conflict when the email is taken
     */
    async updateProfile(actor: Actor, id: string, input: ProfilePatch): Promise<User> {
      const user = await change(id, parseProfile(ProfilePatch, input, 'patch') as ProfilePatch)
      await audit.record(actor, 'user_changed', id)
      return user
    },

    /**
     * Sets a password without knowing the old one, and ends all sign-ins of the user.
     * @throws not_found; conflict for a user of an external provider
     */
    async resetPassword(actor: Actor, id: string, password: string): Promise<void> {
      const hash = await passwords.hash(requirePassword(password))
      const user = await getUser(id)
      if (user.provider !== 'local')
        throw new ThreadbaseError('conflict', `user ${id} signs in with an external provider`, { userId: id })
      await sessions.revokeAlong(user.id, (tx) => repo.setPasswordHash(tx, user.id, hash))
      await audit.record(actor, 'password_reset', user.id)
    },

    /**
     * Sets a password given the old one, and ends all other sign-ins.
     * @param keepSession the session that goes on
     * @throws unauthorized when the old one is wrong; conflict when it was changed at the same moment
     */
    async changePassword(
      actor: Actor,
      id: string,
      { current, next, keepSession }: { current: string; next: string; keepSession?: string },
    ): Promise<void> {
      const wanted = requirePassword(next)
      const stored = (await repo.findPasswordHash(db, id)) ?? null
      if (!(await passwords.verify(current, stored)) || stored === null)
        throw new ThreadbaseError('unauthorized', 'the current password is wrong')
      const hash = await passwords.hash(wanted)
      const set = async (tx: Db) => {
        if (await repo.setPasswordHash(tx, id, hash, stored)) return
        throw new ThreadbaseError('conflict', 'the password was changed at the same moment')
      }
      await sessions.revokeAlong(id, set, keepSession)
      await audit.record(actor, 'password_changed', id)
    },

    /**
     * What a request needs to know of its user: remembered, and forgotten on all servers when it changes.
     * Undefined when there is no such user.
     * @internal
     */
    standing: (id: string): Promise<repo.Standing | undefined> =>
      checks.read(standingKey(id), () => repo.findStanding(db, id)),

    /**
     * As {@link standing}, for a user whom somebody else vouches for: one who is new gets a row.
     * @internal
     */
    async ensure(user: {
      id: string
      provider: 'jwt' | 'proxy'
      email?: string | null
      name?: string | null
    }): Promise<repo.Standing> {
      const id = userOf({ userId: user.id })
      const found = await checks.read(standingKey(id), async () => {
        const known = await repo.findStanding(db, id)
        if (known !== undefined) return known
        await repo.insertUser(db, {
          id,
          provider: user.provider,
          username: null,
          email: user.email ?? null,
          name: user.name ?? null,
          profileImage: null,
          isSuperuser: false,
          passwordHash: null,
        })
        return repo.findStanding(db, id)
      })
      if (found === undefined) throw userNotFound(id)
      // an account of ours, which may be a superuser's, is not somebody else's to vouch for
      if (found.provider === 'local' && found.isErased !== true)
        throw new ThreadbaseError('unauthorized', 'the user is an account that signs in with a password')
      return found
    },

    /** Under what {@link standing} is remembered. @internal */
    cacheKey: standingKey,

    /** Undefined for users without a row in `users`. @internal */
    findOwn: (id: string): Promise<User | undefined> => repo.findUser(db, userOf({ userId: id })),

    /** Whether the user signs in with a password. @internal */
    hasPassword: async (id: string): Promise<boolean> =>
      ((await repo.findPasswordHash(db, id)) ?? null) !== null,

    /** Whether the password is that of the account; false for users who have none. @internal */
    async checkPassword(id: string, password: string): Promise<boolean> {
      const stored = (await repo.findPasswordHash(db, id)) ?? null
      return (await passwords.verify(password, stored)) && stored !== null
    },

    /** Whether there is anybody who signs in with a password. */
    hasAccounts: (): Promise<boolean> => repo.hasAccounts(db),
  }
}

export function userNotFound(id: string): ThreadbaseError {
  return new ThreadbaseError('not_found', `user ${id} does not exist`, { userId: id })
}

/** How a username or an address is stored and looked up. */
export function normalizeLogin(text: string): string {
  return text.normalize('NFKC').toLowerCase()
}

/**
 * The input with username and email as they are kept. It is checked as such once more: normalization makes spaces, an @
 * or a longer text of some characters. @throws invalid_input
 */
function parseProfile<T extends TSchema>(schema: T, input: unknown, what: string): Static<T> {
  const given = { ...parseInput(schema, input, what) } as { username?: string; email?: string | null }
  if (given.username !== undefined) given.username = normalizeLogin(given.username)
  if (typeof given.email === 'string') given.email = normalizeLogin(given.email)
  return parseInput(schema, given, what)
}

function requirePassword(password: string): string {
  return parseInput(Password, password, 'password')
}

function emailTaken(): ThreadbaseError {
  return new ThreadbaseError('conflict', 'the email is taken', { field: 'email' })
}

function readCursor(cursor: string): repo.UserKey {
  const [time, id] = decodeCursor(CURSOR, ['number', 'string'], cursor)
  const createdAt = new Date(time)
  if (time < 0 || Number.isNaN(createdAt.getTime()) || id.includes('\0') || !id.isWellFormed())
    throw badCursor()
  return { createdAt, id }
}
