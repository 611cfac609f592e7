import { describe, expect, test } from 'vitest'
import { parseConfig, withDataDir } from '../config.ts'

const s3 = (env: Record<string, string>) => parseConfig({ S3_BUCKET: 'bytes', ...env }).blobs.s3

describe('where bytes are kept', () => {
  test('files, unless there is a bucket', () => {
    expect(parseConfig({ AWS_REGION: 'us-east-1', AWS_ACCESS_KEY_ID: 'id' }).blobs.s3).toBeUndefined()
    expect(s3({})).toEqual({
      bucket: 'bytes',
      region: 'eu-central-1',
      endpoint: undefined,
      forcePathStyle: false,
      prefix: '',
      credentials: undefined,
    })
  })

  test('a server of its own is asked by path, unless something else is said', () => {
    const S3_ENDPOINT = 'https://minio.example.com:9000'
    expect(s3({ S3_ENDPOINT })).toMatchObject({ endpoint: S3_ENDPOINT, forcePathStyle: true })
    expect(s3({ S3_ENDPOINT, S3_FORCE_PATH_STYLE: 'no' })).toMatchObject({ forcePathStyle: false })
    expect(s3({ S3_FORCE_PATH_STYLE: 'yes' })).toMatchObject({ forcePathStyle: true })
  })

  test('who names a directory has them there', () => {
    const env = {
      S3_BUCKET: 'bytes',
      S3_PREFIX: 'a/',
      S3_ENDPOINT: 'http://s3',
      DATABASE_URL: 'postgres://x/y',
    }
    const config = parseConfig(withDataDir({ ...env, PORT: '1' }, 'here'))
    expect(config).toMatchObject({
      blobs: { s3: undefined },
      databaseUrl: undefined,
      dataDir: 'here',
      port: 1,
    })
  })

  test('a prefix ends in a slash', () => {
    expect(s3({ S3_PREFIX: 'team/threadbase' })?.prefix).toBe('team/threadbase/')
    expect(s3({ S3_PREFIX: 'team/' })?.prefix).toBe('team/')
    expect(s3({ S3_PREFIX: '  ' })?.prefix).toBe('')
  })

  test('credentials are whole or those that the SDK finds', () => {
    const whole = { AWS_ACCESS_KEY_ID: 'id', AWS_SECRET_ACCESS_KEY: 'hunter2' }
    expect(s3(whole)?.credentials).toEqual({ accessKeyId: 'id', secretAccessKey: 'hunter2' })
    expect(s3({ ...whole, AWS_SESSION_TOKEN: 't' })?.credentials).toMatchObject({ sessionToken: 't' })
  })

  const bad: [variable: string, env: Record<string, string>, message: string][] = [
    ['S3_BUCKET', { S3_BUCKET: 'a/b' }, 'must be the name of a bucket'],
    ['S3_BUCKET', { S3_BUCKET: '..' }, 'must be the name of a bucket'],
    ['AWS_REGION', { AWS_REGION: 'eu central' }, 'must be letters'],
    ['S3_ENDPOINT', { S3_ENDPOINT: 's3://hunter2' }, 'must be an http'],
    ['S3_ENDPOINT', { S3_ENDPOINT: 'https://anna:hunter2@minio' }, 'without a user'],
    ['S3_ENDPOINT', { S3_ENDPOINT: 'https://minio/?key=hunter2' }, 'without a user, a password and a query'],
    ['S3_FORCE_PATH_STYLE', { S3_FORCE_PATH_STYLE: 'maybe' }, 'must be true or false'],
    ...['/a', '../a', 'a/../b', 'a/./b', 'a//b', 'a b', 'a\\b', 'ä', '/', 'x'.repeat(501)].map(
      (prefix): [string, Record<string, string>, string] => ['S3_PREFIX', { S3_PREFIX: prefix }, 'must '],
    ),
    ['AWS_ACCESS_KEY_ID', { AWS_SECRET_ACCESS_KEY: 'hunter2' }, 'AWS_SECRET_ACCESS_KEY needs'],
    ['AWS_SECRET_ACCESS_KEY', { AWS_ACCESS_KEY_ID: 'hunter2' }, 'AWS_ACCESS_KEY_ID needs'],
    ['AWS_ACCESS_KEY_ID', { AWS_SESSION_TOKEN: 'hunter2' }, 'AWS_SESSION_TOKEN needs'],
    ['S3_BUCKET', { S3_BUCKET: '', S3_PREFIX: 'a/' }, 'S3_PREFIX needs'],
    ['S3_BUCKET', { S3_BUCKET: '', S3_ENDPOINT: 'https://minio' }, 'S3_ENDPOINT needs'],
  ]
  test.each(bad)('a bad %s is named: %j', (variable, env, message) => {
    let error: unknown
    try {
      s3(env)
    } catch (thrown) {
      error = thrown
    }
    expect(error).toMatchObject({ code: 'invalid_input', details: { variable } })
    expect(String(error)).toContain(variable)
    expect(String(error)).toContain(message)
    expect(String(error)).not.toContain('hunter2')
  })
})
