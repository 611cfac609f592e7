import { describe, expect, test } from 'vitest'
import { parseConfig } from '../config.ts'

const usage = (env: Record<string, string>) => parseConfig(env).usage
const unlimited = { daily: null, monthly: null }

describe('tiers of usage', () => {
  test('without configuration: free, pro and enterprise; no limits on a machine of one user', () => {
    const tiers = {
      free: { daily: 10, monthly: 100 },
      pro: { daily: 100, monthly: 3_000 },
      enterprise: unlimited,
    }
    const settings = usage({})
    expect(Object.fromEntries(settings.tiers)).toEqual(tiers)
    expect(settings).toMatchObject({ defaultTier: 'free', localTier: 'enterprise' })
    expect(usage({ AUTH_MODE: 'accounts' })).toMatchObject({ defaultTier: 'free', localTier: 'free' })
    expect(usage({ USAGE_DEFAULT_TIER: 'free' }).localTier).toBe('free')
  })

  test('of an installation', () => {
    const text = ' a-b_9 = 0/unlimited , unlimited=unlimited/5,x=2147483647/1,all=unlimited'
    const { tiers, ...rest } = usage({ USAGE_TIERS: text, USAGE_DEFAULT_TIER: 'x' })
    expect(Object.fromEntries(tiers)).toEqual({
      'a-b_9': { daily: 0, monthly: null },
      unlimited: { daily: null, monthly: 5 },
      x: { daily: 2_147_483_647, monthly: 1 },
      all: unlimited,
    })
    expect(rest).toEqual({ defaultTier: 'x', localTier: 'x' })
    // nobody has no limits
    expect(usage({ USAGE_TIERS: 'free=1/2' }).localTier).toBe('free')
  })

  test.each([
    'free',
    'free=',
    'free=10',
    'free=10/',
    'free=10/100/1000',
    'free=-1/5',
    'free=1.5/5',
    'free=2147483648/1',
    'free=1e3/1',
    'Free=1/2',
    '=1/2',
    `${'x'.repeat(64)}=1/2`,
    "a'b=1/2",
    'free=1/2,free=3/4',
    ',',
  ])('%j stops the start', (text) => {
    const refused = { code: 'invalid_input', details: { variable: 'USAGE_TIERS' } }
    expect(() => usage({ USAGE_TIERS: text })).toThrow(expect.objectContaining(refused))
    expect(() => usage({ USAGE_TIERS: text })).toThrow(/^USAGE_TIERS /)
  })

  test.each<Record<string, string>>([{ USAGE_DEFAULT_TIER: 'gold' }, { USAGE_TIERS: 'gold=1/2' }])(
    'a default tier that there is not stops the start: %j',
    (env) => {
      expect(() => usage(env)).toThrow(/^USAGE_DEFAULT_TIER must be one of USAGE_TIERS: (free, pro|gold)/)
    },
  )
})
