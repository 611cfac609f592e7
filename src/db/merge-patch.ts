import { type RawBuilder, sql } from 'kysely'
import { encodeJsonb, parseJson } from '../core/json.ts'

/**
 * The new value of a jsonb object: its fields with those of the patch over them, and without those that the patch
 * has as null (JSON Merge Patch, RFC 7396, at the top level). Evaluated in the database, so that two writers of
 * different fields do not undo each other.
 */
export function mergePatch(
  current: RawBuilder<unknown>,
  patch: Record<string, unknown>,
): RawBuilder<unknown> {
  const text = encodeJsonb(patch)
  // read back from the text, so that a removed key is spelt as it is stored
  const removed = Object.entries(parseJson(text) as object).flatMap(([key, value]) =>
    value === null ? [key] : [],
  )
  return sql`(${current} || ${text}::jsonb) - ${removed}::text[]`
}
