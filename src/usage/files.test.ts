import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parseJson } from '../core/json.ts'
import { readUsageFile, writeUsageFile } from './files.ts'
import type { UsageRecord } from './schema.ts'

const RECORD: UsageRecord = {
  tier: 'free',
  dailyUsed: 5,
  dailyLimit: 10,
  monthlyUsed: 50,
  monthlyLimit: 100,
  totalQueries: 150,
  lastResetDaily: '2024-01-31',
  lastResetMonthly: '2024-01-01',
}
const SEED = {
  user_id: 'u',
  tier: 'free',
  daily_used: 5,
  daily_limit: 10,
  monthly_used: 50,
  monthly_limit: 100,
  total_queries: 150,
  last_reset_daily: '2024-01-31',
  last_reset_monthly: '2024-01-01',
}
const OTHER = {
  daily_count: 5,
  daily_limit: 10,
  monthly_count: 50,
  monthly_limit: 100,
  total_count: 150,
  last_daily_reset: '2024-01-31',
  last_monthly_reset: '2024-01',
  tier: 'free',
}

describe('usage.json', () => {
  test('is read in both spellings, and written back in the one that was found', () => {
    expect(readUsageFile(SEED)).toEqual(RECORD)
    expect(readUsageFile(OTHER)).toEqual(RECORD)
    expect(writeUsageFile('u', RECORD)).toEqual(SEED)
    const changed = { ...RECORD, dailyUsed: 1, monthlyUsed: 1, totalQueries: 151 }
    const turned = { ...changed, lastResetDaily: '2024-02-01', lastResetMonthly: '2024-02-01' }
    const found = { ...OTHER, since: { a: [1] }, big: parseJson('12345678901234567890') }
    const written = writeUsageFile('u', turned, found)
    expect(written).toEqual({
      ...found,
      daily_count: 1,
      monthly_count: 1,
      total_count: 151,
      last_daily_reset: '2024-02-01',
      last_monthly_reset: '2024-02',
    })
    expect(Object.keys(written)).toEqual(Object.keys(found))
    expect(JSON.stringify(written)).toContain('12345678901234567890')
    expect(writeUsageFile('u', RECORD, found)).toEqual(found)
  })

  test('with both spellings at once has both changed', () => {
    const both = { daily_used: 1, daily_count: 1 }
    expect(writeUsageFile('u', { ...readUsageFile(both), dailyUsed: 2 }, both)).toEqual({
      daily_used: 2,
      daily_count: 2,
    })
  })

  test('may lack what is the same for all, or have null there', () => {
    const record = {
      ...RECORD,
      tier: null,
      dailyLimit: null,
      monthlyLimit: null,
      monthlyUsed: 0,
      totalQueries: 0,
    }
    const days = { lastResetDaily: null, lastResetMonthly: null }
    expect(readUsageFile({ daily_used: 5 })).toEqual({ ...record, ...days })
    expect(readUsageFile({ daily_count: 5, tier: null, daily_limit: null })).toEqual({ ...record, ...days })
    expect(writeUsageFile('u', { ...record, ...days, dailyUsed: 6 }, { daily_count: 5 })).toEqual({
      daily_count: 6,
    })
  })

  test.each([
    ['2024-01-31', '2024-01-31'],
    ['2024-01', '2024-01-01'],
    ['2024-01-31T23:59:59.123456', '2024-01-31'],
    ['2024-01-31 23:59', '2024-01-31'],
    ['2024-01-31T23:59:59Z', '2024-01-31'],
    ['2024-01-31T23:59:59-05:00', '2024-02-01'],
    ['2024-01-31T00:00:00+02:00', '2024-01-30'],
  ])('a day may be written as %j', (text, day) => {
    expect(readUsageFile({ last_reset_daily: text })).toMatchObject({ lastResetDaily: day })
  })

  test('a time stays a time, with the zone that it had', () => {
    const next = { ...RECORD, lastResetDaily: '2024-02-01', lastResetMonthly: '2024-02-01' }
    const times = {
      last_reset_daily: '2024-01-31T23:59:59.123456',
      last_reset_monthly: '2024-01-01T10:00:00+00:00',
    }
    expect(writeUsageFile('u', next, { ...SEED, ...times })).toMatchObject({
      last_reset_daily: '2024-02-01T00:00:00',
      last_reset_monthly: '2024-02-01T00:00:00+00:00',
    })
  })

  test.each([
    [-1, -1],
    [-5, -1],
    [0, 0],
    [2_147_483_647, 2_147_483_647],
    [1e12, -1],
  ])('a limit of %j is %j', (written, limit) => {
    expect(readUsageFile({ daily_limit: written })).toMatchObject({ dailyLimit: limit })
  })

  test.each([
    [{ daily_used: -1 }, /^daily_used must be a whole number/],
    [{ daily_count: '5' }, /^daily_count must/],
    [{ monthly_used: 1.5 }, /^monthly_used must/],
    [{ monthly_count: 2 ** 31 }, /^monthly_count must/],
    [{ total_queries: 1e300 }, /^total_queries must/],
    [{ total_count: {} }, /^total_count must/],
    [{ daily_limit: 'unlimited' }, /^daily_limit must/],
    [{ tier: '' }, /^tier must/],
    [{ tier: 'x'.repeat(64) }, /^tier must/],
    [{ tier: 'a\0' }, /^tier must/],
    [{ tier: 5 }, /^tier must/],
    [{ last_reset_daily: '2024-02-30' }, /^last_reset_daily must be a day/],
    [{ last_daily_reset: 'yesterday' }, /^last_daily_reset must/],
    [{ last_monthly_reset: '2024-13' }, /^last_monthly_reset must/],
    [{ last_reset_monthly: 1_704_067_200 }, /^last_reset_monthly must/],
    [{}, /no field of a usage file/],
    [{ id: 'a', messages: [] }, /no field of a usage file/],
    [[], /must be a JSON object/],
    [null, /must be a JSON object/],
    ['x', /must be a JSON object/],
  ])('%j is refused in words', (json, message) => {
    expect(() => readUsageFile(json)).toThrow(message)
    expect(() => readUsageFile(json)).toThrow(expect.objectContaining({ code: 'invalid_input' }))
  })

  test('whatever JSON it is, it is read or refused', () => {
    const name = fc.constantFrom(...Object.keys(SEED), ...Object.keys(OTHER), 'other')
    const file = fc.dictionary(name, fc.oneof(fc.jsonValue(), fc.constantFrom('2024-01-31', 5, -1, null)))
    fc.assert(
      fc.property(file, (json) => {
        let record: UsageRecord
        try {
          record = readUsageFile(json)
        } catch (error) {
          expect(error).toMatchObject({ code: 'invalid_input' })
          return
        }
        expect(writeUsageFile('u', record, json)).toEqual(json)
        expect(readUsageFile(writeUsageFile('u', { ...record, dailyUsed: 3 }, json))).toEqual({
          ...record,
          dailyUsed: 3,
        })
      }),
    )
  })
})
