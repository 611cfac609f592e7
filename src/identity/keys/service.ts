import type { Actor } from '../../audit/schema.ts'
import type { AuditService } from '../../audit/service.ts'
import { ThreadbaseError } from '../../core/errors.ts'
import { newId, requireUuid } from '../../core/ids.ts'
import type { Logger } from '../../core/log.ts'
import { decodeIdCursor, encodeCursor, type Page, toPage } from '../../core/pages.ts'
import { type Scope, userOf } from '../../core/scope.ts'
import { parseInput } from '../../core/validate.ts'
import type { Database } from '../../db/database.ts'
import { FOREIGN_KEY_VIOLATION, isSqlState } from '../../db/errors.ts'
import type { Checks } from '../checks.ts'
import { type ApiKey, ApiKeyQuery, DEFAULT_SCOPES, NewApiKey } from '../schema.ts'
import { digestKey, isApiKey, newApiKey, prefixOf } from '../secrets.ts'
import * as repo from './repo.ts'
import { createUseCounter } from './use-counter.ts'

export type KeyService = ReturnType<typeof createKeyService>

/** What a key allows, and until when. JSON-safe: it is cached. */
export type KeyGrant = { userId: string; keyId: string; scopes: string[]; expiresAtMs: number | null }

type Parts = { audit: AuditService; checks: Checks; log: Logger }

const CURSOR = 'api_keys'
const MAX_KEYS = 100

const grantKey = (hash: Buffer) => `token:${hash.toString('hex')}`

/** API keys of a user: made, listed and revoked by their user, and checked when a request comes with one. */
export function createKeyService(
  { db, forUser }: Pick<Database, 'db' | 'forUser'>,
  { audit, checks, log }: Parts,
) {
  const uses = createUseCounter((counted) => repo.addUses(db, counted), log)

  return {
    /**
     * Makes a key. `key` is the key itself, shown this once: only its SHA-256 is kept.
     * @throws not_found for a user without a row in `users`; invalid_input for an expiry in the past; conflict when the user
     *   has 100 keys
     */
    async create(scope: Scope, actor: Actor, input: NewApiKey): Promise<{ apiKey: ApiKey; key: string }> {
      const userId = userOf(scope)
      const { name, scopes = DEFAULT_SCOPES, expiresAt } = parseInput(NewApiKey, withTextExpiry(input), 'key')
      const key = newApiKey()
      const row = { id: newId(), userId, name, prefix: prefixOf(key), hash: digestKey(key) }
      const apiKey = await insert({
        ...row,
        scopes: [...new Set(scopes)],
        expiresAt: expiresAt === undefined || expiresAt === null ? null : requireFuture(expiresAt),
      })
      await audit.record(actor, 'api_key_created', userId, `api_key ${apiKey.id}`)
      return { apiKey, key }
    },

    /** The user's keys, newest first, revoked ones left out unless asked for. Pages by keyset: 50 a page, 200 at most. */
    async list(scope: Scope, input: ApiKeyQuery = {}): Promise<Page<ApiKey>> {
      const userId = userOf(scope)
      const query = parseInput(ApiKeyQuery, input, 'query') as ApiKeyQuery
      const limit = query.limit ?? 50
      const before = query.cursor === undefined ? undefined : decodeIdCursor(CURSOR, query.cursor)
      const rows = await repo.listKeys(forUser(userId), userId, { ...query, limit: limit + 1, before })
      return toPage(rows, limit, (last) => encodeCursor(CURSOR, [last.id]))
    },

    /** What is kept of a key: never the key itself. @throws not_found */
    async getKey(scope: Scope, id: string): Promise<ApiKey> {
      const userId = userOf(scope)
      const apiKey = await repo.findKey(forUser(userId), userId, requireUuid(id, 'key id'))
      if (apiKey === undefined) throw keyNotFound(id)
      return apiKey
    },

    /** Refuses the key from now on, on all servers within a second. False when there was none to revoke, which is no error. */
    async revoke(scope: Scope, actor: Actor, id: string): Promise<boolean> {
      const userId = userOf(scope)
      const uuid = requireUuid(id, 'key id')
      const hash = await repo.revokeKey(forUser(userId), userId, uuid)
      if (hash === undefined) return false
      await checks.forget(grantKey(hash))
      await audit.record(actor, 'api_key_revoked', userId, `api_key ${uuid}`)
      return true
    },

    /**
     * What a key allows; counts its use. Whether its user is active is not looked at: `tb.identity.ofKey` does.
     * @throws unauthorized for one that is malformed, unknown, revoked or expired
     */
    async authenticate(key: string): Promise<KeyGrant> {
      if (!isApiKey(key)) throw refused('invalid')
      const hash = digestKey(key)
      const grant = await checks.read(grantKey(hash), async () => {
        const found = await repo.findByHash(db, hash)
        return found && toGrant(found)
      })
      if (grant === undefined) throw refused('invalid')
      if (grant.expiresAtMs !== null && grant.expiresAtMs <= Date.now()) throw refused('expired')
      uses.count(grant.userId, grant.keyId)
      return grant
    },

    /** Under what the user's keys are remembered. @internal */
    cacheKeys: async (userId: string): Promise<string[]> => (await repo.listHashes(db, userId)).map(grantKey),

    /** Writes the uses that this process has counted since the last time; it does so every 5 s by itself. */
    flushUses: (): Promise<void> => uses.flush(),

    /** Writes what is left and counts no more. @internal */
    close: (): Promise<void> => uses.close(),
  }

  async function insert(row: repo.NewKeyRow): Promise<ApiKey> {
    try {
      const apiKey = await repo.insertKey(forUser(row.userId), row, MAX_KEYS)
      if (apiKey !== undefined) return apiKey
    } catch (error) {
      if (!isSqlState(error, FOREIGN_KEY_VIOLATION)) throw error
      throw new ThreadbaseError('not_found', `user ${row.userId} does not exist`, { userId: row.userId })
    }
    throw new ThreadbaseError('conflict', `a user has ${MAX_KEYS} API keys at most: revoke one first`, {
      limit: MAX_KEYS,
    })
  }
}

function keyNotFound(id: string): ThreadbaseError {
  return new ThreadbaseError('not_found', `API key ${id} does not exist`, { keyId: id })
}

function toGrant({ userId, id, scopes, expiresAt }: ApiKey): KeyGrant {
  return { userId, keyId: id, scopes, expiresAtMs: expiresAt?.getTime() ?? null }
}

function refused(reason: 'invalid' | 'expired'): ThreadbaseError {
  const message = reason === 'expired' ? 'the API key has expired' : 'the API key is not valid'
  return new ThreadbaseError('unauthorized', message, { reason })
}

function withTextExpiry(input: NewApiKey): unknown {
  return input?.expiresAt instanceof Date ? { ...input, expiresAt: input.expiresAt.toISOString() } : input
}

function requireFuture(text: string): string {
  const at = new Date(text.toUpperCase().replace(' ', 'T'))
  if (isDay(text.slice(0, 10)) && at.getTime() > Date.now() && at.getUTCFullYear() <= 9_999)
    return at.toISOString()
  throw new ThreadbaseError('invalid_input', 'expires_at must be a time in the future', {
    field: 'expires_at',
  })
}

/** False for 30 February, which Date takes for a day in March. */
function isDay(text: string): boolean {
  const day = new Date(`${text}T00:00:00Z`)
  return !Number.isNaN(day.getTime()) && day.toISOString().startsWith(text)
}
