import { beforeAll, describe, expect, test } from 'vitest'
import {
  availableStores,
  cleanUpAfterAll,
  type Environment,
  runHere,
  temporaryDirectory,
} from './processes.ts'

cleanUpAfterAll()

describe.each(availableStores)('threadbase usage on $name', ({ newEnv }) => {
  let env: Environment
  beforeAll(async () => {
    env = { ...(await newEnv()), BCRYPT_COST: '4', LOG_LEVEL: 'silent' }
    await runHere(['users', 'create', 'anna', '--password', 'correct horse'], env)
  })
  const usage = (...args: string[]) => runHere(['usage', ...args], env)

  test('shows and sets what an account, and who has none, may ask', async () => {
    const none = 'today 0 of 10  this month 0 of 100  ever 0\n'
    expect(await usage('show', 'anna')).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(new RegExp(`^[0-9a-f-]{36}  free  ${none}$`)),
    })
    const set = await usage('set', 'anna', '--tier', 'pro', '--daily', '7', '--monthly', 'unlimited')
    expect(set).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('  pro  today 0 of 7  this month 0 of unlimited'),
    })
    expect((await usage('set', 'anna', '--daily', 'default')).stdout).toContain('  pro  today 0 of 100 ')
    expect((await usage('set', 'of-elsewhere', '--tier', 'enterprise')).stdout).toBe(
      'of-elsewhere  enterprise  today 0 of unlimited  this month 0 of unlimited  ever 0\n',
    )
    expect((await usage('show')).stdout.split('\n')).toHaveLength(3)
    const [line = ''] = (await usage('show', 'of-elsewhere', '--json')).stdout.split('\n')
    expect(JSON.parse(line)).toMatchObject({ userId: 'of-elsewhere', dailyLimit: null })
    expect(await usage('totals', 'anna', '--since', '2026-01-01', '--until', '2026-01-31')).toMatchObject({
      code: 0,
      stdout: '',
    })
  })

  test.each([
    [['set', 'anna', '--tier', 'gold'], /patch.tier must be one of: free, pro, enterprise/],
    [['set', 'anna', '--daily', '-1'], /must be a number, unlimited, or default/],
    [['set', 'anna', '--daily', '9999999999'], /patch.dailyLimit/],
    [['totals', 'anna', '--since', 'monday'], /query.since/],
    [['set'], /missing required argument/],
  ])('%j is refused', async (args, message) => {
    const { code, stderr } = await usage(...args)
    expect(code).toBe(2)
    expect(stderr).toMatch(message)
  })
})

test('threadbase usage on JSON files, where ids are all that users have', async () => {
  const env = { DATABASE_URL: `json:${await temporaryDirectory()}`, LOG_LEVEL: 'silent' }
  const usage = (...args: string[]) => runHere(['usage', ...args], env)
  const set = 'anna  pro  today 0 of 7  this month 0 of 3000  ever 0\n'
  expect(await usage('set', 'anna', '--tier', 'pro', '--daily', '7')).toMatchObject({ code: 0, stdout: set })
  expect(await usage('show', 'anna')).toMatchObject({ code: 0, stdout: set })
  expect(await usage('show')).toMatchObject({ code: 0, stdout: set })
  expect(await usage('totals')).toMatchObject({ code: 0, stdout: '' })
})
