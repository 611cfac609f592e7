import { spawnSync } from 'node:child_process'
import { chmod, mkdir, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { canMount, mountDisk } from '../../test/disks.ts'
import { makeTempDir } from '../../test/harness.ts'
import { makeDirectory, removeDurably, sweepLeftovers, writeAtomically } from './atomic.ts'

let dir: string
beforeAll(async () => {
  dir = await makeTempDir()
})
afterAll(() => rm(dir, { recursive: true, force: true }))

describe('a file that is written as a whole', () => {
  test('is new or replaced, keeps its mode, and leaves nothing beside it', async () => {
    const own = join(dir, 'own')
    await makeDirectory(join(own, 'inner'))
    const path = join(own, 'inner', 'a.json')
    await writeAtomically(path, 'one')
    expect((await stat(path)).mode & 0o777).toBe(0o600)
    await chmod(path, 0o640)
    await writeAtomically(path, Buffer.from('two'))
    expect((await stat(path)).mode & 0o777).toBe(0o640)
    expect(await readFile(path, 'utf8')).toBe('two')
    expect(await writeAtomically(path, 'three', { confirm: async () => false })).toBe(false)
    expect(await readFile(path, 'utf8')).toBe('two')
    expect(await readdir(join(own, 'inner'))).toEqual(['a.json'])
    expect(await removeDurably(path)).toBe(true)
    expect(await removeDurably(path)).toBe(false)
  })

  test('readers beside ten writers see whole contents only', async () => {
    const path = join(dir, 'busy')
    const contents = Array.from({ length: 10 }, (_, i) => String(i).repeat(200_000))
    await writeAtomically(path, contents[0] as string)
    let busy = true
    const read = async () => {
      while (busy) expect(contents.includes(await readFile(path, 'utf8'))).toBe(true)
    }
    const reading = read()
    await Promise.all(contents.map((content) => writeAtomically(path, content)))
    busy = false
    await reading
  })

  test('what refuses is unavailable', async () => {
    await expect(writeAtomically(join(dir, 'absent', 'a'), 'x')).rejects.toMatchObject({
      code: 'unavailable',
      details: { code: 'ENOENT' },
    })
    await mkdir(join(dir, 'taken', 'inner'), { recursive: true })
    await expect(writeAtomically(join(dir, 'taken'), 'x')).rejects.toMatchObject({ code: 'unavailable' })
    expect((await readdir(dir)).filter((name) => name.startsWith('.'))).toEqual([])
  })

  test('leftovers of the killed go after an hour, and nothing else does', async () => {
    const own = join(dir, 'leftovers')
    await mkdir(own)
    const token = '0192f0c1-2f6b-7cc0-8d2e-5f0a6d2f4b11'
    const left = ['.a.json.0123456789abcdef.tmp', `.lock-of-${token}`, `.a.lock.takeover.${token}`]
    const kept = ['.a.json.tmp', '.a.lock', '.a.turn', '.hidden', 'a.json', 'b.0123456789abcdef.tmp']
    for (const name of [...left, ...kept]) await writeFile(join(own, name), '')
    await sweepLeftovers(own, await readdir(own))
    expect(await readdir(own)).toHaveLength(9)
    const longAgo = new Date(Date.now() - 3_700_000)
    for (const name of await readdir(own)) await utimes(join(own, name), longAgo, longAgo)
    await sweepLeftovers(own, await readdir(own))
    expect((await readdir(own)).sort()).toEqual(kept.sort())
  })
})

describe.skipIf(!canMount())('a disk that is full', () => {
  let disk: string
  beforeAll(async () => {
    disk = await makeTempDir()
    expect(mountDisk(disk, 1 << 20)).toBe(true)
  })
  afterAll(async () => {
    spawnSync('umount', [disk])
    await rm(disk, { recursive: true, force: true })
  })

  test('leaves the old file whole and nothing beside it', async () => {
    const path = join(disk, 'a')
    const old = 'a'.repeat(300_000)
    await writeAtomically(path, old)
    for (let i = 0; i < 3; i++)
      await expect(writeAtomically(path, 'b'.repeat(900_000))).rejects.toMatchObject({
        code: 'unavailable',
        details: { code: 'ENOSPC' },
      })
    expect(await readdir(disk)).toEqual(['a'])
    expect(await readFile(path, 'utf8')).toBe(old)
    await writeAtomically(path, 'c'.repeat(300_000))
    expect((await readFile(path, 'utf8'))[0]).toBe('c')
  })
})
