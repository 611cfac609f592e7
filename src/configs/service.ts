import { requireUuid } from '../core/ids.ts'
import { type Scope, userOf } from '../core/scope.ts'
import { parseInput } from '../core/validate.ts'
import type { Database } from '../db/database.ts'
import { threadNotFound } from '../threads/service.ts'
import * as repo from './repo.ts'
import {
  CONFIG_FIELDS,
  type Config,
  type ConfigDefaults,
  ConfigPatch,
  type ConfigSource,
  NewConfig,
} from './schema.ts'

export type ConfigService = ReturnType<typeof createConfigService>

/** Per-thread model configuration over the defaults of this installation. */
export function createConfigService({ forUser }: Pick<Database, 'forUser'>, defaults: ConfigDefaults) {
  const inForce = (stored: repo.StoredConfig | undefined, threadId: string): Config => {
    if (stored === undefined) throw threadNotFound(threadId)
    return withDefaults(stored, defaults)
  }
  return {
    /** What a thread gets that sets nothing. */
    defaults: (): Config => withDefaults({ ...unset, settings: {} }, defaults),

    /** @throws not_found */
    async get(scope: Scope, threadId: string): Promise<Config> {
      const userId = userOf(scope)
      const thread = requireUuid(threadId, 'thread id')
      return inForce(await repo.findConfig(forUser(userId), userId, thread), threadId)
    },

    /** Replaces the thread's own values; what is left out falls back to its default. @throws not_found */
    async put(scope: Scope, threadId: string, input: NewConfig): Promise<Config> {
      const userId = userOf(scope)
      const thread = requireUuid(threadId, 'thread id')
      const config = parseInput(NewConfig, input, 'config')
      return inForce(await repo.putConfig(forUser(userId), userId, thread, config), threadId)
    },

    /** Changes only what is given; null falls back to the default. @throws not_found */
    async patch(scope: Scope, threadId: string, input: ConfigPatch): Promise<Config> {
      const userId = userOf(scope)
      const thread = requireUuid(threadId, 'thread id')
      const patch = parseInput(ConfigPatch, input, 'config')
      return inForce(await repo.patchConfig(forUser(userId), userId, thread, patch), threadId)
    },
  }
}

const unset: ConfigDefaults = { model: null, temperature: null, systemPrompt: null, contextWindow: null }

function withDefaults(stored: repo.StoredConfig, defaults: ConfigDefaults): Config {
  const sourceOf = (field: keyof ConfigDefaults): ConfigSource => {
    if (stored[field] !== null) return 'thread'
    return defaults[field] === null ? 'unset' : 'default'
  }
  return {
    model: stored.model ?? defaults.model,
    temperature: stored.temperature ?? defaults.temperature,
    systemPrompt: stored.systemPrompt ?? defaults.systemPrompt,
    contextWindow: stored.contextWindow ?? defaults.contextWindow,
    settings: stored.settings,
    sources: Object.fromEntries(CONFIG_FIELDS.map((field) => [field, sourceOf(field)])) as Config['sources'],
  }
}
