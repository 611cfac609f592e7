import { spawnSync } from 'node:child_process'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { canMount, mountDisk } from '../../test/disks.ts'
import { makeTempDir } from '../../test/harness.ts'
import { createLineReport, type LineReport } from './line-report.ts'

type Line = { file: string; bad?: boolean }
const end = (report: LineReport<Line>) =>
  report.end(
    { total: 2 },
    'heading\n',
    ({ file }) => file,
    ({ bad }) => bad === true,
  )

let parent: string
beforeAll(async () => {
  parent = await makeTempDir()
})
afterAll(() => rm(parent, { recursive: true, force: true }))

test('a report has all lines, as JSON and as text', async () => {
  const file = join(parent, 'r.json')
  const report = createLineReport<Line>(file)
  report.add({ file: 'ä\u2028\n' })
  report.add({ file: 'b', bad: true })
  await end(report)
  expect(JSON.parse(await readFile(file, 'utf8'))).toEqual({
    total: 2,
    files: [{ file: 'ä\u2028\n' }, { file: 'b', bad: true }],
  })
  expect(await readFile(join(parent, 'r.txt'), 'utf8')).toBe('heading\nb\nä\u2028\ufffd\n')
  expect(await readdir(parent)).toEqual(['r.json', 'r.txt'])
})

describe.skipIf(!canMount())('a disk that is full', () => {
  let disk: string
  beforeAll(async () => {
    disk = join(parent, 'disk')
    await mkdir(disk)
    expect(mountDisk(disk, 256 * 1024)).toBe(true)
  })
  afterAll(() => void spawnSync('umount', [disk]))
  afterEach(async () => {
    for (const name of await readdir(disk)) await rm(join(disk, name))
  })
  const refused = (file: string) => ({
    code: 'unavailable',
    message: `the report ${file} cannot be written (ENOSPC)`,
  })

  test('is told by the name of the report, line by line', async () => {
    const file = join(disk, 'r.json')
    const report = createLineReport<Line>(file)
    const fill = () => {
      for (let i = 0; i < 1_000; i++) report.add({ file: 'x'.repeat(500) })
    }
    expect(fill).toThrow(expect.objectContaining(refused(file)))
    await expect(end(report)).rejects.toMatchObject(refused(file))
    expect(await readdir(disk)).toEqual([])
  })

  test('makes no report of which the end is missing', async () => {
    const file = join(disk, 'r.json')
    const report = createLineReport<Line>(file)
    for (let i = 0; i < 100; i++) report.add({ file: 'x'.repeat(500) })
    // room for a part of the report
    await writeFile(join(disk, 'other'), Buffer.alloc(176 * 1024))
    await expect(end(report)).rejects.toMatchObject(refused(file))
    expect(await readdir(disk)).toEqual(['other'])
  })
})
