import type { Actor } from '../../audit/schema.ts'
import type { AuditService } from '../../audit/service.ts'
import { ThreadbaseError } from '../../core/errors.ts'
import type { Page } from '../../core/pages.ts'
import { type Scope, userOf } from '../../core/scope.ts'
import { parseInput } from '../../core/validate.ts'
import type { Database } from '../../db/database.ts'
import { NewProviderKey, Provider, type ProviderKey } from '../schema.ts'
import { requireKey } from '../secret-input.ts'
import { maskOf, type Opened, type Vault } from '../vault.ts'
import * as repo from './repo.ts'

export type ProviderKeyService = ReturnType<typeof createProviderKeyService>

type Parts = { audit: AuditService; vault: Vault }

const MAX_KEYS = 100

/** The keys that users bring for the providers of models, encrypted; one a provider. */
export function createProviderKeyService({ forUser }: Pick<Database, 'forUser'>, { audit, vault }: Parts) {
  /** What may be shown of a key: never the key itself. Undefined without one. @throws unavailable without an encryption key */
  async function findKey(scope: Scope, provider: string): Promise<ProviderKey | undefined> {
    const userId = userOf(scope)
    const name = parseInput(Provider, provider, 'provider')
    const open = await vault.opener()
    const row = await repo.findKey(forUser(userId), userId, name)
    return row && toProviderKey(row, open(row))
  }

  return {
    /**
     * Stores the user's key for a provider, in the place of an earlier one. `created`: there was none.
     * @throws invalid_input for white space around the key, or what is no printable ASCII in it; conflict when the user has keys
     *   for 100 providers; unavailable without an encryption key
     */
    async put(
      scope: Scope,
      actor: Actor,
      provider: string,
      input: NewProviderKey,
    ): Promise<{ apiKey: ProviderKey; created: boolean }> {
      const userId = userOf(scope)
      const name = parseInput(Provider, provider, 'provider')
      const key = requireKey(parseInput(NewProviderKey, input, 'key').apiKey)
      const row = await repo.putKey(forUser(userId), userId, name, await vault.seal(key), MAX_KEYS)
      if (row === undefined)
        throw new ThreadbaseError('conflict', `a user has keys for ${MAX_KEYS} providers at most`, {
          limit: MAX_KEYS,
        })
      await audit.record(actor, 'provider_key_set', userId, `provider_key ${name}`)
      return { apiKey: toProviderKey(row, { text: key }), created: row.created }
    },

    /** All of the user, by provider, in one page. One that cannot be read is there without a mask. @throws unavailable without an encryption key */
    async list(scope: Scope): Promise<Page<ProviderKey>> {
      const userId = userOf(scope)
      const open = await vault.opener()
      const rows = await repo.listKeys(forUser(userId), userId)
      return { items: rows.map((row) => toProviderKey(row, open(row))) }
    },

    findKey,

    /** As `findKey`. @throws not_found; unavailable without an encryption key */
    async getKey(scope: Scope, provider: string): Promise<ProviderKey> {
      const found = await findKey(scope, provider)
      if (found === undefined) throw keyNotFound(provider)
      return found
    },

    /** Removes a key. False when there was none, which is no error. */
    async delete(scope: Scope, actor: Actor, provider: string): Promise<boolean> {
      const userId = userOf(scope)
      const name = parseInput(Provider, provider, 'provider')
      if (!(await repo.deleteKey(forUser(userId), userId, name))) return false
      await audit.record(actor, 'provider_key_deleted', userId, `provider_key ${name}`)
      return true
    },
  }
}

export function keyNotFound(provider: string): ThreadbaseError {
  return new ThreadbaseError('not_found', `there is no API key for ${provider}`, { provider })
}

function toProviderKey({ token: _, ...row }: repo.KeyRow, opened: Opened): ProviderKey {
  const { userId, provider, keyId, createdAt, updatedAt } = row
  const mask = 'text' in opened ? maskOf(opened.text) : null
  return { userId, provider, mask, isReadable: mask !== null, keyId, createdAt, updatedAt }
}
