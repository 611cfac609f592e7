import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { makeTempDir } from '../test/harness.ts'
import { parseConfig } from './config.ts'
import { silentLog } from './core/log.ts'
import { openBlobs, openUrlSigner } from './open-blobs.ts'

const GET = { contentType: 'text/plain', contentDisposition: 'inline', expiresInS: 60 }

describe('the bytes of a configuration', () => {
  let root: string
  beforeAll(async () => {
    root = await makeTempDir()
  })
  afterAll(() => rm(root, { recursive: true, force: true }))

  test('files in the data directory, which opening leaves alone', async () => {
    const dataDir = join(root, 'data')
    const blobs = await openBlobs(parseConfig({ DATA_DIR: dataDir }), silentLog)
    expect(await readdir(root)).toEqual([])
    await using staged = await blobs.stage(Readable.from([Buffer.from('x')]))
    await staged.commit()
    expect(await readdir(dataDir)).toEqual(['blobs'])
    expect(blobs.locate(staged.sha256)).not.toHaveProperty('url')
  })

  test('who shares the directory takes the URLs of the others; nobody else does', async () => {
    const config = parseConfig({ DATA_DIR: join(root, 'shared') })
    const url = await (await openBlobs(config, silentLog)).presignGet('ab'.repeat(32), GET)
    const query = Object.fromEntries(new URL(url, 'http://localhost').searchParams)
    const allowed = (await openUrlSigner(config)()).checkGet('ab'.repeat(32), query)
    expect(allowed).toMatchObject({ contentType: 'text/plain' })
    const other = await openUrlSigner({ dataDir: join(root, 'other') })()
    expect(() => other.checkGet('ab'.repeat(32), query)).toThrow('not valid')
  })

  test('a bucket, which opening does not ask', async () => {
    const env = {
      DATA_DIR: join(root, 'none'),
      S3_BUCKET: 'bytes',
      S3_PREFIX: 'a',
      S3_ENDPOINT: 'http://127.0.0.1:9',
    }
    const keys = { AWS_ACCESS_KEY_ID: 'id', AWS_SECRET_ACCESS_KEY: 'hunter2' }
    const blobs = await openBlobs(parseConfig({ ...env, ...keys }), silentLog)
    expect(blobs).toMatchObject({ engine: 's3', description: 'S3 bucket bytes at 127.0.0.1:9' })
    expect(blobs.locate('ab'.repeat(32)).url).toMatch(/^s3:\/\/bytes\/a\/output\/artifacts\/ab\/ab\//)
    const url = new URL(await blobs.presignGet('ab'.repeat(32), GET))
    expect(url.pathname).toMatch(/^\/bytes\/a\/output\//)
    expect(await readdir(root)).not.toContain('none')
    await blobs.close()
  })

  test('a data directory that cannot be is unavailable when a URL is asked for, not before', async () => {
    const blobs = await openBlobs(parseConfig({ DATA_DIR: '/dev/null/x' }), silentLog)
    await expect(blobs.presignGet('ab'.repeat(32), GET)).rejects.toMatchObject({ code: 'unavailable' })
    // a small body waits in memory until it is committed
    const staged = await blobs.stage(Readable.from([Buffer.from('x')]))
    await expect(staged.commit()).rejects.toMatchObject({ code: 'unavailable' })
    await staged.discard()
    const large = Readable.from([Buffer.alloc(3_000_000)])
    await expect(blobs.stage(large)).rejects.toMatchObject({ code: 'unavailable' })
  })
})
