import pg from 'pg'
import { decodeJsonb, parseJson } from '../core/json.ts'

const OID = { int8: 20, json: 114, jsonb: 3802 } as const

function parseInt8(text: string): number | string {
  const value = Number(text)
  return Number.isSafeInteger(value) ? value : text
}

type Parser = (text: string) => unknown
const parsers: Record<number, Parser> = {
  [OID.int8]: parseInt8,
  [OID.json]: parseJson,
  [OID.jsonb]: decodeJsonb,
}

/**
 * How columns arrive on both engines: int8 and count() as number (text when a double cannot hold it), bytea as
 * Buffer, timestamptz as Date, numeric as text, json and jsonb as their value with nothing lost.
 */
export const typeParsers = {
  getTypeParser(oid: number, format?: 'text' | 'binary'): Parser {
    const own = format === 'binary' ? undefined : parsers[oid]
    return own ?? (pg.types.getTypeParser(oid, format ?? 'text') as Parser)
  },
}
