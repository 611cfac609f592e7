import { sql } from 'kysely'
import { encodeJsonb } from '../core/json.ts'
import { mergePatch } from '../db/merge-patch.ts'
import { type Db, t } from '../db/schema.ts'
import type { ConfigDefaults, ConfigPatch, NewConfig } from './schema.ts'

export type StoredConfig = ConfigDefaults & { settings: Record<string, unknown> }

type ConfigRow = {
  model: string | null
  temperature: number | null
  system_prompt: string | null
  context_window: number | null
  settings: Record<string, unknown> | null
}

const toConfig = (row: ConfigRow): StoredConfig => ({
  model: row.model,
  temperature: row.temperature,
  systemPrompt: row.system_prompt,
  contextWindow: row.context_window,
  settings: row.settings ?? {},
})

/** All null for a thread without one. Undefined when the user has no such thread. */
export async function findConfig(
  db: Db,
  userId: string,
  threadId: string,
): Promise<StoredConfig | undefined> {
  const { rows } = await sql<ConfigRow>`
    /* configs.get */
    select c.model, c.temperature, c.system_prompt, c.context_window, c.settings
      from ${t.threads} th
      left join ${t.configs} c on c.user_id = th.user_id and c.thread_id = th.id
     where th.user_id = ${userId} and th.id = ${threadId}::uuid`.execute(db)
  return rows[0] && toConfig(rows[0])
}

// a thread that is being deleted is waited for and then not there, rather than a foreign key that fails
const whileItStays = sql`for key share`

/** Undefined when the user has no such thread. */
export async function putConfig(
  db: Db,
  userId: string,
  threadId: string,
  config: NewConfig,
): Promise<StoredConfig | undefined> {
  const { rows } = await sql<ConfigRow>`
    /* configs.put */
    insert into ${t.configs} as c (user_id, thread_id, model, temperature, system_prompt, context_window, settings)
    select th.user_id, th.id, ${config.model ?? null}::text, ${config.temperature ?? null}::double precision,
           ${config.systemPrompt ?? null}::text, ${config.contextWindow ?? null}::int,
           ${encodeJsonb(config.settings ?? {})}::jsonb
      from ${t.threads} th where th.user_id = ${userId} and th.id = ${threadId}::uuid ${whileItStays}
    on conflict (user_id, thread_id) do update
      set model = excluded.model, temperature = excluded.temperature, system_prompt = excluded.system_prompt,
          context_window = excluded.context_window, settings = excluded.settings
    returning model, temperature, system_prompt, context_window, settings`.execute(db)
  return rows[0] && toConfig(rows[0])
}

/** Undefined when the user has no such thread. */
export async function patchConfig(
  db: Db,
  userId: string,
  threadId: string,
  patch: ConfigPatch,
): Promise<StoredConfig | undefined> {
  // a field that the patch leaves out keeps its stored value, which is null in a row made by this statement
  const keep = (column: string, present: boolean) =>
    present ? sql`excluded.${sql.ref(column)}` : sql`c.${sql.ref(column)}`
  const { model, temperature, systemPrompt, contextWindow, settings } = patch
  const { rows } = await sql<ConfigRow>`
    /* configs.patch */
    insert into ${t.configs} as c (user_id, thread_id, model, temperature, system_prompt, context_window, settings)
    select th.user_id, th.id, ${model ?? null}::text, ${temperature ?? null}::double precision,
           ${systemPrompt ?? null}::text, ${contextWindow ?? null}::int,
           ${settings === undefined ? sql`'{}'::jsonb` : mergePatch(sql`'{}'::jsonb`, settings)}
      from ${t.threads} th where th.user_id = ${userId} and th.id = ${threadId}::uuid ${whileItStays}
    on conflict (user_id, thread_id) do update
      set model = ${keep('model', model !== undefined)},
          temperature = ${keep('temperature', temperature !== undefined)},
          system_prompt = ${keep('system_prompt', systemPrompt !== undefined)},
          context_window = ${keep('context_window', contextWindow !== undefined)},
          settings = ${settings === undefined ? sql`c.settings` : mergePatch(sql`c.settings`, settings)}
    returning model, temperature, system_prompt, context_window, settings`.execute(db)
  return rows[0] && toConfig(rows[0])
}
