import { type Static, Type } from 'typebox'
import { closed, JsonObject, Nullable, Text } from '../core/fields.ts'

const fields = {
  model: Type.Optional(Nullable(Text(255, { description: 'Name of the model, such as gpt-4o.' }))),
  temperature: Type.Optional(
    Nullable(Type.Number({ minimum: 0, maximum: 2, description: 'Sampling temperature.' })),
  ),
  systemPrompt: Type.Optional(
    Nullable(Text(100_000, { description: 'Instructions that open the conversation.' })),
  ),
  contextWindow: Type.Optional(
    Nullable(Type.Integer({ minimum: 1, maximum: 2_147_483_647, description: 'Most tokens of context.' })),
  ),
}

/** What PUT takes: a field that is left out or null falls back to its default. */
export const NewConfig = Type.Object(
  { ...fields, settings: Type.Optional(JsonObject({ description: 'Further settings of the model.' })) },
  closed,
)
export type NewConfig = Static<typeof NewConfig>

/** What PATCH takes: a field that is left out stays, one that is null falls back to its default. */
export const ConfigPatch = Type.Object(
  {
    ...fields,
    settings: Type.Optional(
      JsonObject({ description: 'Merged into the stored settings; a field that is null is removed.' }),
    ),
  },
  { ...closed, minProperties: 1 },
)
export type ConfigPatch = Static<typeof ConfigPatch>

export const CONFIG_FIELDS = ['model', 'temperature', 'systemPrompt', 'contextWindow'] as const
export type ConfigField = (typeof CONFIG_FIELDS)[number]

/** The values that stand for what neither thread nor environment sets: null each. */
export type ConfigDefaults = {
  model: string | null
  temperature: number | null
  systemPrompt: string | null
  contextWindow: number | null
}

/** Where a value comes from: set on the thread, a default of this installation, or nowhere (the value is null). */
export type ConfigSource = 'thread' | 'default' | 'unset'

/** The configuration in force, and for each field where it comes from. */
export type Config = ConfigDefaults & {
  settings: Record<string, unknown>
  sources: Record<ConfigField, ConfigSource>
}
