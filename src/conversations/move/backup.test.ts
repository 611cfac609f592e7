import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { appendFileSync, readdirSync, truncateSync, writeFileSync } from 'node:fs'
import { link, mkdir, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { makeCouncilFolder } from '../../../test/council-folders.ts'
import { canMount, mountDisk } from '../../../test/disks.ts'
import { makeTempDir } from '../../../test/harness.ts'
import { backUpFolder } from './backup.ts'

let parent: string
let dir: string
beforeEach(async () => {
  parent = await makeTempDir()
  dir = join(parent, 'data')
  await mkdir(dir)
})
afterEach(() => rm(parent, { recursive: true, force: true }))

async function readAll(from: string): Promise<Record<string, string>> {
  const entries = await readdir(from, { recursive: true, withFileTypes: true })
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
  const read = files.map(async (file) => [file.slice(from.length), await readFile(file, 'base64')] as const)
  return Object.fromEntries((await Promise.all(read)).sort())
}

test('the archive holds every file as it is, hidden ones too, and unpacks with tar', async () => {
  await makeCouncilFolder(dir, { odd: true, broken: true, conversations: 30 })
  await writeFile(join(dir, '.hidden'), 'x')
  await writeFile(join(dir, `conversations/${'long '.repeat(36)}é.json`), randomBytes(300_000))
  await writeFile(join(dir, 'empty.json'), '')
  await link(join(dir, '.hidden'), join(dir, 'again'))
  await symlink('/etc/passwd', join(dir, 'thief'))
  const before = await readAll(dir)
  const report = await backUpFolder(dir)
  expect(basename(report.file)).toMatch(/^data-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.tar\.gz$/)
  expect(report).toMatchObject({
    files: Object.keys(before).length,
    archiveBytes: (await stat(report.file)).size,
  })
  expect((await stat(report.file)).mode & 0o777).toBe(0o600)
  await mkdir(join(parent, 'unpacked'))
  execFileSync('tar', ['--warning=no-unknown-keyword', '-xzf', report.file, '-C', join(parent, 'unpacked')])
  expect(await readAll(join(parent, 'unpacked/data'))).toEqual(before)
  expect(await readAll(dir)).toEqual(before)
  expect((await readdir(parent)).sort()).toEqual(['data', basename(report.file), 'unpacked'].sort())
})

test('a file that changes meanwhile is told, and the archive made again', async () => {
  await makeCouncilFolder(dir, { conversations: 5 })
  const told: string[] = []
  let calls = 0
  const changeAt = (call: number) => () => {
    if (++calls === call)
      for (const name of readdirSync(join(dir, 'conversations/clerk-0')))
        appendFileSync(join(dir, 'conversations/clerk-0', name), ' ')
  }
  const report = await backUpFolder(dir, { onProgress: changeAt(1), onRetry: (reason) => told.push(reason) })
  expect(told).toHaveLength(1)
  expect(report.files).toBe(Object.keys(await readAll(dir)).length)
})

test('files that keep changing, or appear, are no backup', async () => {
  await makeCouncilFolder(dir, { conversations: 5 })
  let n = 0
  const always = () => writeFileSync(join(dir, `conversations/new${n++}.json`), '{}')
  await expect(backUpFolder(dir, { onProgress: always })).rejects.toMatchObject({
    code: 'conflict',
    message: expect.stringContaining('no backup was made'),
  })
  expect(await readdir(parent)).toEqual(['data'])
})

test.for(['cut', 'overwritten'])('an archive that is %s on the disk is not taken for one', async (how) => {
  await writeFile(join(dir, 'a.json'), randomBytes(10))
  for (let n = 0; n < 20; n++) await writeFile(join(dir, `${n}.json`), randomBytes(400_000))
  const told: string[] = []
  const damage = () => {
    const part = readdirSync(parent).find((name) => name.endsWith('.part'))
    const path = join(parent, String(part))
    if (how === 'cut') truncateSync(path, 5_000_000)
    else writeFileSync(path, randomBytes(8_000_000), { flag: 'r+' })
  }
  const call = backUpFolder(dir, { onProgress: damage, onRetry: (reason) => told.push(reason) })
  await expect(call).rejects.toMatchObject({ code: 'conflict' })
  expect(told[0]).toContain('cannot be read back')
  expect(await readdir(parent)).toEqual(['data'])
})

test('never in the folder itself, and never in the place of a file', async () => {
  await makeCouncilFolder(dir, { conversations: 2 })
  const file = join(parent, 'there.tar.gz')
  await writeFile(file, 'precious')
  await symlink(dir, join(parent, 'link'))
  for (const inside of [join(dir, 'b.tar.gz'), join(dir, 'conversations'), join(parent, 'link/b.tar.gz')])
    await expect(backUpFolder(dir, { file: inside })).rejects.toMatchObject({ code: 'invalid_input' })
  await expect(backUpFolder(dir, { file })).rejects.toMatchObject({ code: 'conflict' })
  await expect(backUpFolder(dir, { file: join(parent, 'no/b.tar.gz') })).rejects.toMatchObject({
    code: 'not_found',
  })
  expect(await readFile(file, 'utf8')).toBe('precious')
  await mkdir(join(parent, 'backups'))
  expect((await backUpFolder(dir, { file: join(parent, 'backups') })).file).toContain('/backups/data-')
})

test('it stops when it is told to, and leaves nothing', async () => {
  await makeCouncilFolder(dir, { conversations: 20 })
  const controller = new AbortController()
  const call = backUpFolder(dir, { signal: controller.signal, onProgress: () => controller.abort() })
  await expect(call).rejects.toThrow()
  expect(await readdir(parent)).toEqual(['data'])
})

test.skipIf(!canMount())('a disk that is full is told by its name, and nothing is left on it', async () => {
  await makeCouncilFolder(dir, { conversations: 5 })
  await writeFile(join(dir, 'conversations/large.json'), randomBytes(500_000))
  const disk = join(parent, 'disk')
  await mkdir(disk)
  expect(mountDisk(disk, 128 * 1024)).toBe(true)
  try {
    await expect(backUpFolder(dir, { file: disk })).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(`^no backup was made in ${disk}: ENOSPC`),
    })
    expect(await readdir(disk)).toEqual([])
  } finally {
    execFileSync('umount', [disk])
  }
})
