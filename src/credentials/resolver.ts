import { type Scope, userOf } from '../core/scope.ts'
import { parseInput } from '../core/validate.ts'
import type { Database } from '../db/database.ts'
import * as repo from './api-keys/repo.ts'
import { keyNotFound } from './api-keys/service.ts'
import { Provider } from './schema.ts'
import type { NoteUse } from './use-notes.ts'
import { unreadable, type Vault } from './vault.ts'

export type Resolver = ReturnType<typeof createResolver>

/** The plaintext of a user's keys, for callers in this process: no route leads here. */
export function createResolver(
  { forUser }: Pick<Database, 'forUser'>,
  { vault, noteUse }: { vault: Vault; noteUse: NoteUse },
  scope: Scope,
) {
  const userId = userOf(scope)
  async function find(provider: string): Promise<string | undefined> {
    const name = parseInput(Provider, provider, 'provider')
    const row = await repo.findKey(forUser(userId), userId, name)
    // who has none needs no encryption key to know
    if (row === undefined) return undefined
    const opened = (await vault.opener())(row)
    if ('text' in opened) {
      await noteUse(userId, name)
      return opened.text
    }
    throw unreadable(`the API key for ${name}`, row, opened.problem, { provider: name })
  }
  return {
    /**
     * The user's key for a provider, in plaintext; never empty.
     * @throws not_found without one; unavailable when the encryption key of its row is missing, which `details.keyId` names
     */
    async resolve(provider: string): Promise<string> {
      const key = await find(provider)
      if (key === undefined) throw keyNotFound(provider)
      return key
    },

    /** As `resolve`; undefined without one. @throws unavailable as `resolve` */
    async find(provider: string): Promise<string | undefined> {
      return find(provider)
    },
  }
}
