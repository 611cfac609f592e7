import { splitList, type Variable } from './variable.ts'

type Tier = { daily: number | null; monthly: number | null }

const NAME = /^[a-z0-9_-]{1,63}$/
const UNLIMITED = 'unlimited'
const MAX_LIMIT = 2_147_483_647

/** How much users may ask. */
export const USAGE = {
  USAGE_TIERS: {
    name: 'USAGE_TIERS',
    kind: 'text',
    default: 'free=10/100,pro=100/3000,enterprise=unlimited',
    description:
      'How many questions users of each tier may ask in a day and in a month, as `name=daily/monthly`, comma-separated; `unlimited` in place of a number or of both.',
    check: (value) => {
      const tiers = readTiers(value)
      return typeof tiers === 'string' ? tiers : undefined
    },
  },
  USAGE_DEFAULT_TIER: {
    name: 'USAGE_DEFAULT_TIER',
    kind: 'text',
    default: 'free',
    description:
      'The tier of users who were given none. Not set, in mode `single-user`, the user `local` has the first tier without limits in its place.',
  },
} as const satisfies Record<string, Variable>

/** Tiers by name, in their order; a text says what is wrong. */
export function readTiers(value: string): ReadonlyMap<string, Tier> | string {
  const tiers = new Map<string, Tier>()
  for (const part of splitList(value)) {
    const [, name = '', limits = ''] = /^([^=]*)=(.*)$/.exec(part) ?? []
    const tier = readTier(limits.trim())
    if (!NAME.test(name.trim()) || tier === undefined)
      return `must be a list such as free=10/100,enterprise=unlimited; this is no part of one: ${part}`
    if (tiers.has(name.trim())) return `names the tier ${name.trim()} twice`
    tiers.set(name.trim(), tier)
  }
  return tiers.size === 0 ? 'must name a tier at least' : tiers
}

function readTier(text: string): Tier | undefined {
  if (text === UNLIMITED) return { daily: null, monthly: null }
  const limits = text.split('/').map((limit) => readLimit(limit.trim()))
  const [daily, monthly] = limits
  return limits.length === 2 && daily !== undefined && monthly !== undefined ? { daily, monthly } : undefined
}

/** Null: none; undefined for what is no limit. */
function readLimit(text: string): number | null | undefined {
  if (text === UNLIMITED) return null
  return /^\d{1,10}$/.test(text) && Number(text) <= MAX_LIMIT ? Number(text) : undefined
}
