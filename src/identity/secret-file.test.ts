import { chmod, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { runChild } from '../../test/child.ts'
import { makeTempDir } from '../../test/harness.ts'
import { readOrMakeSecret } from './secret-file.ts'

describe('the file of a secret', () => {
  let root: string
  let directory: string
  let count = 0
  beforeAll(async () => {
    root = await makeTempDir()
  })
  afterAll(() => rm(root, { recursive: true, force: true }))
  beforeEach(() => {
    directory = join(root, String(++count), 'not there yet')
  })

  test('is made once, for its owner alone, and read from then on', async () => {
    const file = join(directory, 'auth.secret')
    const secret = await readOrMakeSecret(file)
    expect(secret).toMatch(/^[\w-]{64}$/)
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    expect(await readOrMakeSecret(file)).toBe(secret)
    expect(await readFile(file, 'utf8')).toBe(`${secret}\n`)
    expect(await readdir(directory)).toEqual(['auth.secret'])
    expect(await readOrMakeSecret(join(root, 'another.secret'))).not.toBe(secret)
  })

  test('is made by one of many calls at once', async () => {
    const file = join(directory, 'auth.secret')
    const all = await Promise.all(Array.from({ length: 30 }, () => readOrMakeSecret(file)))
    expect(new Set(all).size).toBe(1)
    expect(await readdir(directory)).toEqual(['auth.secret'])
  })

  test('is made by one of many processes at once', async () => {
    const file = join(directory, 'auth.secret')
    const startAt = Date.now() + 1_500
    const children = Array.from({ length: 6 }, () => runChild('make-secret.ts', { file, startAt }))
    const secrets = await Promise.all(children.map((child) => child.nextLine()))
    expect(await Promise.all(children.map(({ exited }) => exited))).toEqual(Array(6).fill(0))
    expect(secrets).toEqual(Array(6).fill(await readOrMakeSecret(file)))
    expect(await readdir(directory)).toEqual(['auth.secret'])
  })

  test.each([
    ['empty', ''],
    ['blank', ' \n\n'],
    ['short', 'too short\n'],
  ])('that is %s is refused, and stays as it is', async (_, text) => {
    const file = join(root, `${++count}.secret`)
    await writeFile(file, text)
    await expect(readOrMakeSecret(file)).rejects.toMatchObject({
      code: 'invalid_input',
      message: expect.stringContaining(file),
    })
    expect(await readFile(file, 'utf8')).toBe(text)
  })

  test('of somebody’s own making is taken without the line break at its end', async () => {
    const file = join(root, `${++count}.secret`)
    await writeFile(file, `${'own '.repeat(10)}\r\n`)
    expect(await readOrMakeSecret(file)).toBe('own '.repeat(10).trim())
  })

  test.skipIf(process.getuid?.() === 0)('that may not be read is not replaced', async () => {
    const file = join(root, `${++count}.secret`)
    await writeFile(file, 'x'.repeat(40), { mode: 0o600 })
    await chmod(file, 0)
    await expect(readOrMakeSecret(file)).rejects.toThrow(/EACCES/)
  })
})
