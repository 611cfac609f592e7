import type { Key } from '../core/key-ring.ts'
import type { Rotation, TableKey } from '../credentials/service.ts'
import { formatCount } from './interrupt.ts'

export type Outcome = { interrupted: boolean; dryRun: boolean; seconds: number }

type Ring = readonly Key[]

/** Whether every row is, or after a dry run would be, under the first key. */
export function isComplete({ counts, refused }: Rotation, dryRun: boolean): boolean {
  if (!dryRun) return counts.every(({ is }) => is === 'first')
  return refused === 0 && counts.every(({ is, keyId }) => is !== 'missing' || keyId === null)
}

/** A table: a line for each key, a column for each table with rows. */
export function describeKeys(ring: Ring, counts: TableKey[]): string {
  const tables = [...new Set(counts.map(({ table }) => table))]
  const header = ['key', ...tables, '']
  const lines = keysOf(ring, counts).map(({ keyId, is }) => {
    const rows = tables.map((table) => formatCount(rowsOf(counts, table, keyId)))
    return [keyId ?? '(none named)', ...rows, MEANING[is]]
  })
  const none = ring.length === 0 ? 'no key yet: one is made when the first secret is stored\n' : ''
  return none + (lines.length === 0 ? '' : alignColumns([header, ...lines]))
}

export function describeRotation(ring: Ring, rotation: Rotation, outcome: Outcome): string {
  const { reencrypted, damaged, left } = rotation
  const { interrupted, dryRun, seconds } = outcome
  const lines = [
    ...(dryRun ? ['dry run: nothing was written'] : []),
    ...(interrupted ? ['interrupted: run it again to go on'] : []),
    `${dryRun ? 'would encrypt' : 'encrypted'} ${rowsText(reencrypted)} with key ${ring[0]?.id ?? '(none)'} in ${seconds.toFixed(1)} s`,
    ...damaged.map(({ table, key, keyId, problem }) => {
      const why = problem === 'malformed' ? 'is nothing that was encrypted' : 'was changed'
      return `not readable: ${table} ${JSON.stringify(key)} (key ${keyId ?? 'not named'}) ${why}`
    }),
    ...(left > 0 && !dryRun && !interrupted
      ? [
          `${rowsText(left)} left under another key: somebody holds them, or a server still has another key first; run it again`,
        ]
      : []),
  ]
  return `${lines.join('\n')}\n\n${describeKeys(ring, rotation.counts)}`
}

export function keysToJson(ring: Ring, counts: TableKey[]): string {
  return `${JSON.stringify({ keys: toJson(ring, counts) })}\n`
}

export function rotationToJson(ring: Ring, rotation: Rotation, outcome: Outcome): string {
  const { reencrypted, refused, damaged, left, counts } = rotation
  const { interrupted, dryRun, seconds } = outcome
  return `${JSON.stringify({
    reencrypted,
    left,
    refused,
    damaged: damaged.map(({ keyId, ...row }) => ({ ...row, key_id: keyId })),
    keys: toJson(ring, counts),
    interrupted,
    dry_run: dryRun,
    seconds,
  })}\n`
}

const rowsText = (rows: number) => `${formatCount(rows)} ${rows === 1 ? 'row' : 'rows'}`

const MEANING = { first: 'first: encrypts', ring: 'decrypts', missing: 'not among the keys', unnamed: '' }

type Meaning = keyof typeof MEANING

/** Those of the ring in its order, then those that rows name beside. */
function keysOf(ring: Ring, counts: TableKey[]): { keyId: string | null; is: Meaning }[] {
  const own = new Set(ring.map(({ id }) => id))
  const missing = new Set(
    counts.flatMap(({ is, keyId }) => (is === 'missing' && keyId !== null ? [keyId] : [])),
  )
  return [
    ...[...own].map((keyId, i) => ({ keyId, is: i === 0 ? ('first' as const) : ('ring' as const) })),
    ...[...missing].map((keyId) => ({ keyId, is: 'missing' as const })),
    ...(counts.some(({ keyId }) => keyId === null) ? [{ keyId: null, is: 'unnamed' as const }] : []),
  ]
}

function rowsOf(counts: TableKey[], table: string, keyId: string | null): number {
  return counts.find((count) => count.table === table && count.keyId === keyId)?.rows ?? 0
}

function toJson(ring: Ring, counts: TableKey[]) {
  return keysOf(ring, counts).map(({ keyId, is }) => ({
    key_id: keyId,
    is,
    rows: Object.fromEntries(
      counts.filter((count) => count.keyId === keyId).map(({ table, rows }) => [table, rows]),
    ),
  }))
}

/** Text to the left, numbers to the right. */
function alignColumns(lines: string[][]): string {
  const widths = lines[0]?.map((_, i) => Math.max(...lines.map((line) => line[i]?.length ?? 0))) ?? []
  const last = widths.length - 1
  const text = lines.map((line) =>
    line
      .map((cell, i) => (i === 0 || i === last ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
      .join('  ')
      .trimEnd(),
  )
  return `${text.join('\n')}\n`
}
