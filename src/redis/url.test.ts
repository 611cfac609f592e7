import { describe, expect, test } from 'vitest'
import { parseConfig } from '../config.ts'
import { describeRedis, parseRedisUrl, type RedisAddress } from './url.ts'

describe('the URL of Redis', () => {
  test.each([
    ['redis://cache', { host: 'cache' }, 'Redis at cache:6379'],
    ['redis://127.0.0.1:7000/', { host: '127.0.0.1', port: 7000 }, 'Redis at 127.0.0.1:7000'],
    ['redis://[::1]:7000/2', { host: '::1', port: 7000, database: 2 }, 'Redis at [::1]:7000/2'],
    ['redis://:p%40ss%2F@h', { host: 'h', password: 'p@ss/' }, 'Redis at h:6379'],
    [
      'rediss://me:s3cret@h:1',
      { host: 'h', port: 1, username: 'me', password: 's3cret', tls: true },
      'Redis at h:1',
    ],
  ] as [string, Partial<RedisAddress>, string][])('%s', (url, expected, description) => {
    const address = parseRedisUrl(url)
    const defaults = { port: 6379, username: undefined, password: undefined, database: 0, tls: false }
    expect(address).toEqual({ ...defaults, ...expected })
    expect(describeRedis(address as RedisAddress)).toBe(description)
  })

  test.each([
    'localhost:6379',
    'http://h',
    'redis://',
    'redis:///0',
    'redis://h/first',
    'redis://h/0?db=1',
    'redis://h:99999',
    'redis://:%zz@h',
    'redis://:secret@h:port',
  ])('%s is refused by name, and not repeated', (url) => {
    expect(parseRedisUrl(url)).toBeUndefined()
    const parse = () => parseConfig({ REDIS_URL: url })
    expect(parse).toThrow(
      expect.objectContaining({ code: 'invalid_input', details: { variable: 'REDIS_URL' } }),
    )
    expect(parse).toThrow(/^REDIS_URL must be a redis:\/\/ or rediss:\/\/ URL/)
    expect(parse).not.toThrow(/secret/)
  })

  test('the configuration has none by default, and a prefix', () => {
    expect(parseConfig({})).toMatchObject({ redisUrl: undefined, redisPrefix: 'threadbase:' })
    const env = { REDIS_URL: 'redis://h', REDIS_PREFIX: 'other:' }
    expect(parseConfig(env)).toMatchObject({ redisUrl: 'redis://h', redisPrefix: 'other:' })
  })
})
