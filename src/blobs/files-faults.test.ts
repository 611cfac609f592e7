import { spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { chmod, mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { canMount, mountDisk } from '../../test/disks.ts'
import { makeTempDir } from '../../test/harness.ts'
import type { Blobs } from './blobs.ts'
import { openFiles } from './files.ts'

const MiB = 1 << 20
const shaOf = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
const signer = async () => expect.fail('nobody asked for a URL')

describe.skipIf(!canMount())('a disk that is full', () => {
  let dir: string
  let blobs: Blobs
  beforeAll(async () => {
    dir = await makeTempDir()
    expect(mountDisk(dir, 8 * MiB)).toBe(true)
    blobs = openFiles({ dir, signer })
  })
  afterAll(async () => {
    spawnSync('umount', [dir])
    await rm(dir, { recursive: true, force: true })
  })

  test('is unavailable, keeps what it has, and nothing of what it has no room for', async () => {
    const kept = randomBytes(3 * MiB)
    await (await blobs.stage(Readable.from([kept]))).commit()
    const parts = Array.from({ length: 10 }, () => randomBytes(MiB))
    for (const source of [parts, [Buffer.concat(parts)]]) {
      await expect(blobs.stage(Readable.from(source))).rejects.toMatchObject({
        code: 'unavailable',
        message: 'the storage of files failed (ENOSPC)',
        details: { code: 'ENOSPC' },
      })
      expect(await readdir(join(dir, 'uploads'))).toEqual([])
    }
    expect(await blobs.find(shaOf(Buffer.concat(parts)))).toBeUndefined()
    expect((await buffer(await blobs.read(shaOf(kept), { verify: true }))).equals(kept)).toBe(true)
    const small = await blobs.stage(Readable.from([randomBytes(MiB)]))
    expect(await small.commit()).toEqual({ existed: false })
  })

  test('takes an object of somebody else not in part', async () => {
    const bytes = randomBytes(2 * MiB)
    await writeFile(join(dir, 'uploads', 'theirs'), bytes)
    await writeFile(join(dir, 'filler'), randomBytes(MiB))
    await expect(blobs.stageObject('uploads/theirs')).rejects.toMatchObject({ code: 'unavailable' })
    expect(await readdir(join(dir, 'uploads'))).toEqual(['theirs'])
    expect(await blobs.find(shaOf(bytes))).toBeUndefined()
    await rm(join(dir, 'filler'))
    await using staged = await blobs.stageObject('uploads/theirs')
    expect(await staged.commit()).toEqual({ existed: false })
  })
})

describe('a disk that refuses', () => {
  let dir: string
  beforeAll(async () => {
    dir = await makeTempDir()
  })
  afterAll(() => rm(dir, { recursive: true, force: true }))

  test('is unavailable where a file stands in the way of a directory', async () => {
    for (const name of ['uploads', 'output']) {
      const own = join(dir, name)
      await mkdir(own)
      await writeFile(join(own, name), 'x')
      const blobs = openFiles({ dir: own, signer })
      const store = async () => {
        await using staged = await blobs.stage(Readable.from([Buffer.from('y')]))
        await staged.commit()
      }
      await expect(store()).rejects.toMatchObject({ code: 'unavailable' })
      expect((await readdir(own)).filter((one) => one !== name && one !== 'uploads')).toEqual([])
      if (name === 'output') expect(await readdir(join(own, 'uploads'))).toEqual([])
    }
  })

  test.skipIf(process.getuid?.() === 0)('is unavailable where its rights are missing', async () => {
    const own = join(dir, 'locked')
    await mkdir(own)
    await chmod(own, 0o500)
    const blobs = openFiles({ dir: own, signer })
    await expect(blobs.stage(Readable.from([Buffer.from('y')]))).rejects.toMatchObject({
      code: 'unavailable',
    })
  })
})
