import { Type } from 'typebox'
import { ThreadbaseError } from '../core/errors.ts'
import { parseInput } from '../core/validate.ts'
import { MAX_CONSUMED, NO_LIMIT, UsagePatch, type UsageReceipt, type UsageSettings } from './schema.ts'

const Count = Type.Integer({ minimum: 1, maximum: MAX_CONSUMED })
const Day = Type.String({ pattern: '^\\d{4}-\\d\\d-\\d\\d$' })
const Receipt = Type.Object({ n: Count, day: Day, month: Day })

/** How many questions to count. @throws invalid_input */
export const requireCount = (n: number): number => parseInput(Count, n, 'n')

/** @throws invalid_input for what `consume` did not give */
export const requireReceipt = (receipt: UsageReceipt): UsageReceipt => parseInput(Receipt, receipt, 'receipt')

/** @throws invalid_input, also for a tier that is not configured */
export function requirePatch({ tiers }: UsageSettings, input: UsagePatch): UsagePatch {
  const patch = parseInput(UsagePatch, input, 'patch')
  if (patch.tier === undefined || tiers.has(patch.tier)) return patch
  const names = [...tiers.keys()].join(', ')
  throw new ThreadbaseError('invalid_input', `patch.tier must be one of: ${names}`, { field: 'tier' })
}

/** For the audit log, such as `tier pro, daily limit 5`. */
export function describePatch({ tier, dailyLimit, monthlyLimit }: UsagePatch): string {
  const limit = (of: string, value: number | null | undefined) => {
    if (value === undefined) return []
    return `${of} limit ${value === null ? 'of the tier' : value === NO_LIMIT ? 'none' : value}`
  }
  const parts = [
    tier === undefined ? [] : `tier ${tier}`,
    limit('daily', dailyLimit),
    limit('monthly', monthlyLimit),
  ]
  return parts.flat().join(', ')
}
