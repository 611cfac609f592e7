import type { AuditService } from '../audit/service.ts'
import type { KeySource } from '../core/key-ring.ts'
import type { Database } from '../db/database.ts'
import { createProviderKeyService, type ProviderKeyService } from './api-keys/service.ts'
import { createResolver, type Resolver } from './resolver.ts'
import { createUseNotes } from './use-notes.ts'
import { createVariableService, type VariableService } from './variables/service.ts'
import { createVault } from './vault.ts'

export type { ProviderKeyService } from './api-keys/service.ts'
export { encryptedSecretTables } from './encrypted-tables.ts'
export { createKeySource, fixedKeys, type KeySettings, newEncryptionKey } from './key-source.ts'
export type { Resolver } from './resolver.ts'
export { countKeys, type Rotation, rotateKeys, type TableKey } from './rotation.ts'
export type { VariableService } from './variables/service.ts'

/** What users keep secret, encrypted with the keys of the installation. */
export type CredentialService = {
  /** The keys that users bring for the providers of models. */
  readonly apiKeys: ProviderKeyService
  /** One user's keys in plaintext, for callers in this process. @throws invalid_input for an id that cannot be one */
  forUser(userId: string): Resolver
}

type Parts = { audit: AuditService; keys: KeySource }

export function createCredentialService(
  database: Pick<Database, 'forUser'>,
  { audit, keys }: Parts,
): { credentials: CredentialService; variables: VariableService } {
  const parts = { audit, vault: createVault(keys), noteUse: createUseNotes(audit) }
  return {
    credentials: {
      apiKeys: createProviderKeyService(database, parts),
      forUser: (userId) => createResolver(database, parts, { userId }),
    },
    variables: createVariableService(database, parts),
  }
}
