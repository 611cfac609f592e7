import { execFileSync } from 'node:child_process'
import { createReadStream } from 'node:fs'
import { lstat, mkdir, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { makeTempDir } from '../../test/harness.ts'
import { writeWholeFile } from './whole-file.ts'

describe('a file that is written whole', () => {
  let dir: string
  const { signal } = new AbortController()
  const some = () => Readable.from(['one ', 'two'])
  beforeAll(async () => {
    dir = await makeTempDir()
  })
  afterAll(() => rm(dir, { recursive: true, force: true }))

  test('has its name when it is complete, and its mode', async () => {
    const path = join(dir, 'a')
    await writeWholeFile(path, some(), { signal, mode: 0o600 })
    expect(await readFile(path, 'utf8')).toBe('one two')
    expect((await lstat(path)).mode & 0o777).toBe(0o600)
  })

  test('is not there when its source fails or somebody ends it, and the one before stays', async () => {
    const path = join(dir, 'b')
    await writeFile(path, 'before')
    const failing = Readable.from(
      (async function* () {
        yield 'one'
        throw new Error('broken off')
      })(),
    )
    await expect(writeWholeFile(path, failing, { signal })).rejects.toThrow('broken off')
    const controller = new AbortController()
    const endless = new Readable({ read: () => {} })
    endless.push('one')
    setTimeout(() => controller.abort(), 20)
    await writeWholeFile(path, endless, { signal: controller.signal })
    expect(await readFile(path, 'utf8')).toBe('before')
    expect((await readdir(dir)).filter((name) => name.startsWith('b'))).toEqual(['b'])
  })

  test('a pipe or a device is written to, and stays what it is', async () => {
    const path = join(dir, 'pipe')
    execFileSync('mkfifo', [path])
    const read = text(createReadStream(path))
    await writeWholeFile(path, some(), { signal })
    expect(await read).toBe('one two')
    expect((await lstat(path)).isFIFO()).toBe(true)
  })

  test('a link stays one, and what it leads to is replaced', async () => {
    await writeFile(join(dir, 'target'), 'before')
    await symlink('target', join(dir, 'link'))
    await writeWholeFile(join(dir, 'link'), some(), { signal })
    expect(await readFile(join(dir, 'target'), 'utf8')).toBe('one two')
    expect((await lstat(join(dir, 'link'))).isSymbolicLink()).toBe(true)
  })

  test('a directory is refused before anything is read', async () => {
    const path = join(dir, 'directory')
    await mkdir(path)
    const source = some()
    await expect(writeWholeFile(path, source, { signal })).rejects.toMatchObject({
      code: 'invalid_input',
      message: `${path} cannot be written (EISDIR)`,
    })
    expect(source.destroyed).toBe(true)
  })
})
