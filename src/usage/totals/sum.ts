import type { UsageTotal } from '../schema.ts'
import { MAX_TOKENS, PLACES, type Place } from './places.ts'
import { MAX_TOTALS, type Range, tooManyTotals } from './range.ts'

/** What totals are made of. */
export type UsageMessage = { createdAt: Date; meta: Record<string, unknown> }

type Sum = Omit<UsageTotal, 'cost'> & { /** In millionths of a millionth of a dollar. */ cost: bigint | null }

const COST_SCALE = 1e12

/** What repo.ts sums in the database, of messages that come one by one. @throws too_large */
export async function sumUsage(
  messages: AsyncIterable<UsageMessage>,
  { since, until }: Range,
): Promise<UsageTotal[]> {
  const sums = new Map<string, Sum>()
  for await (const { createdAt, meta } of messages) {
    if (createdAt < since || createdAt >= until) continue
    const day = createdAt.toISOString().slice(0, 10)
    for (const call of callsOf(meta)) {
      add(sums, day, { call, meta })
      if (sums.size > MAX_TOTALS) throw tooManyTotals()
    }
  }
  return [...sums.values()]
    .sort((a, b) => compare(b.day, a.day) || compareModels(a.model, b.model))
    .map((sum) => ({ ...sum, cost: sum.cost === null ? null : Number(sum.cost) / COST_SCALE }))
}

function callsOf(meta: Record<string, unknown>): unknown[] {
  const usage = 'usage' in meta ? meta.usage : meta.usage_metadata
  return [usage].flat().filter((call) => typeof call === 'object' && call !== null && !Array.isArray(call))
}

type Source = { call: unknown; meta: unknown }

function add(sums: Map<string, Sum>, day: string, source: Source): void {
  const model =
    firstOf(source, PLACES.model, (value) => (typeof value === 'string' ? value : undefined)) ?? null
  const key = JSON.stringify([day, model])
  const sum = sums.get(key) ?? { day, model, calls: 0, inputTokens: 0, outputTokens: 0, cost: null }
  sums.set(key, sum)
  sum.calls++
  sum.inputTokens += tokens(source, PLACES.input)
  sum.outputTokens += tokens(source, PLACES.output)
  const cost = firstOf(source, PLACES.cost, toNumber)
  if (cost !== undefined && cost >= 0) sum.cost = (sum.cost ?? 0n) + BigInt(Math.round(cost * COST_SCALE))
}

function tokens(source: Source, places: readonly Place[]): number {
  const value = Math.trunc(firstOf(source, places, toNumber) ?? 0)
  return value >= 0 && value <= MAX_TOKENS ? value : 0
}

function firstOf<T>(source: Source, places: readonly Place[], read: (value: unknown) => T | undefined) {
  for (const { of, path } of places) {
    const found = read(
      path.reduce<unknown>((at, name) => (at as Record<string, unknown> | null)?.[name], source[of]),
    )
    if (found !== undefined) return found
  }
  return undefined
}

/** Also of a number that a double does not hold exactly. */
function toNumber(value: unknown): number | undefined {
  const raw = (value as { rawJSON?: string } | null)?.rawJSON
  const number = typeof value === 'number' ? value : raw === undefined ? undefined : Number(raw)
  return Number.isFinite(number) ? number : undefined
}

const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)

/** What has no name comes last. */
function compareModels(a: string | null, b: string | null): number {
  if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1
  return compare(a, b)
}
