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

  test('a data directory that cannot be is unavailable when a URL is asked for, not before', async () => {
    const blobs = await openBlobs(parseConfig({ DATA_DIR: '/dev/null/x' }), silentLog)
    await expect(blobs.presignGet('ab'.repeat(32), GET)).rejects.toMatchObject({ code: 'unavailable' })
    await expect(blobs.stage(Readable.from([Buffer.from('x')]))).rejects.toMatchObject({
      code: 'unavailable',
    })
  })
})
