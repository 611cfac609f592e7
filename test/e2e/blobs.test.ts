import { readdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openThreadbase } from '../../src/open-threadbase.ts'
import type { Threadbase } from '../../src/threadbase.ts'
import { sha256Of } from '../uploads.ts'
import {
  availableStores,
  cleanUpAfterAll,
  type Environment,
  runHere,
  temporaryDirectory,
} from './processes.ts'

cleanUpAfterAll()

describe.each(availableStores)('threadbase blobs, $name', ({ newEnv }) => {
  const scope = { userId: 'anna' }
  let env: Environment
  let ids: { artifact: string; file: string }
  const blobs = (...args: string[]) => runHere(['blobs', ...args], env)
  // of the embedded store there is one owner at a time
  const withStore = async <T>(work: (tb: Threadbase) => Promise<T>): Promise<T> => {
    await using tb = await openThreadbase({ env })
    return await work(tb)
  }
  const pathOf = (bytes: string) => {
    const sha256 = sha256Of(bytes)
    return join(
      String(env.DATA_DIR),
      'blobs/output/artifacts',
      sha256.slice(0, 2),
      sha256.slice(2, 4),
      sha256,
    )
  }

  beforeAll(async () => {
    env = { DATA_DIR: await temporaryDirectory(), ...(await newEnv()), LOG_LEVEL: 'error' }
    ids = await withStore(async (tb) => {
      const { id: thread } = await tb.threads.create(scope)
      const { id: gone } = await tb.threads.create(scope)
      const artifact = await tb.artifacts.create(scope, thread, 'kept')
      const file = await tb.files.create(scope, 'also kept')
      for (const bytes of ['gone', 'gone, too', 'kept']) await tb.artifacts.create(scope, gone, bytes)
      await tb.threads.delete(scope, gone)
      return { artifact: artifact.id, file: file.id }
    })
  })
  afterAll(() =>
    withStore(({ database }) => database.db.schema.dropSchema(database.schema).cascade().execute()),
  )

  test.each(['x', '-1', '1.5h', '1y', '', '9999999999'])('--grace %j is refused', async (grace) => {
    const message = /^threadbase: --grace must be a time such as 90s, 12h, 30d or 8w\n$/
    expect(await blobs('gc', `--grace=${grace}`)).toMatchObject({
      code: 2,
      stdout: '',
      stderr: expect.stringMatching(message),
    })
    expect((await blobs('gc', `--upload-grace=${grace}`)).stderr).toContain('--upload-grace must be')
  })

  test('what is not there, or not known, is said so', async () => {
    const nowhere = { DATA_DIR: join(String(env.DATA_DIR), 'nowhere') }
    for (const command of ['gc', 'verify'])
      expect(await runHere(['blobs', command], nowhere)).toMatchObject({
        code: 3,
        stderr: expect.stringContaining('there is no embedded store'),
      })
    expect(await readdir(String(env.DATA_DIR))).not.toContain('nowhere')
    for (const args of [['other'], ['gc', '--other'], ['verify', 'x'], []])
      expect((await blobs(...args)).code).toBe(2)
    const help = await blobs('gc', '--help')
    expect(help).toMatchObject({ code: 0, stdout: expect.stringContaining('--dry-run') })
  })

  test('gc leaves alone what is young, and says so', async () => {
    expect(await blobs('gc')).toMatchObject({
      code: 0,
      stderr: '',
      stdout: [
        'removed            0 blobs, 0 bytes',
        'expired files      0',
        'abandoned uploads  0, and 0 objects that they left',
        'left alone         2 unnamed ones, stored within 1h (--grace)\n',
      ].join('\n'),
    })
  })

  test('gc --dry-run says what it would remove, gc removes it', async () => {
    const dry = await blobs('gc', '--grace', '0', '--dry-run')
    expect(dry).toMatchObject({ code: 0, stderr: '' })
    expect(dry.stdout).toMatch(/^dry run: nothing was removed; this would be\nremoved +2 blobs, 13 bytes\n/)
    const report = {
      ...{ removed: 2, removed_bytes: 13, strays: 0, strays_left: 0, expired_files: 0, expired_uploads: 0 },
      ...{ abandoned_uploads: 0, young: 0, dry_run: true, interrupted: false },
    }
    expect(JSON.parse((await blobs('gc', '--grace', '0s', '--dry-run', '--json')).stdout)).toEqual(report)
    expect(JSON.parse((await blobs('gc', '--grace', '0', '--json')).stdout)).toEqual({
      ...report,
      dry_run: false,
    })
    expect((await blobs('gc', '--grace', '0')).stdout).toMatch(/^removed +0 blobs, 0 bytes\n/)
  })

  test('verify says that all is well; then what is missing and what is corrupt, with exit code 1', async () => {
    expect(await blobs('verify')).toEqual({
      ...{ code: 0, signal: null, stderr: '' },
      stdout: '2 blobs checked, 13 bytes: 0 missing, 0 corrupt, 0 unreadable\n',
    })
    await rm(pathOf('kept'))
    await writeFile(pathOf('also kept'), 'ALSO KEPT')
    const found = await blobs('verify')
    expect(found).toMatchObject({ code: 1, stderr: '' })
    expect(found.stdout.split('\n').sort()).toEqual(
      [
        '',
        `missing  ${sha256Of('kept')}  4 bytes: artifact ${ids.artifact} of anna`,
        `corrupt  ${sha256Of('also kept')}  9 bytes: file ${ids.file} of anna`,
        '2 blobs checked, 13 bytes: 1 missing, 1 corrupt, 0 unreadable',
      ].sort(),
    )
    const json = await blobs('verify', '--json')
    expect(json.code).toBe(1)
    const lines = json.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(lines.at(-1)).toEqual({
      checked: 2,
      checked_bytes: 13,
      missing: 1,
      corrupt: 1,
      unreadable: 0,
      interrupted: false,
    })
    expect(lines.find(({ problem }) => problem === 'missing')).toEqual({
      ...{ sha256: sha256Of('kept'), problem: 'missing', size: 4, found: null },
      named_by: [{ user_id: 'anna', table: 'artifacts', id: ids.artifact }],
    })
    // sizes alone do not tell
    expect((await blobs('verify', '--quick')).stdout).toContain('1 missing, 0 corrupt')
    await writeFile(pathOf('also kept'), 'also kept')
    await withStore((tb) => tb.files.create(scope, 'kept'))
    expect((await blobs('verify')).code).toBe(0)
  })
})
