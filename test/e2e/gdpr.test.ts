import { spawn } from 'node:child_process'
import { mkdir, readdir, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { beforeAll, describe, expect, test } from 'vitest'
import { openThreadbase } from '../../src/open-threadbase.ts'
import { unzip } from '../zip.ts'
import { childEnv } from './installed.ts'
import { cleanUpAfterAll, type Environment, runHere, stores, temporaryDirectory } from './processes.ts'

cleanUpAfterAll()

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))
const BY = { userId: 'tests', via: 'library' } as const
const QUIET = { code: 0, stderr: '' }

for (const store of stores)
  describe.skipIf(!store.available)(`threadbase gdpr, ${store.name}`, () => {
    let env: Environment
    let dir: string
    let anna: string
    beforeAll(async () => {
      env = await store.newEnv()
      dir = await temporaryDirectory()
      env.DATA_DIR ??= await temporaryDirectory()
      await using tb = await openThreadbase({ env })
      anna = (await tb.identity.users.create(BY, { username: 'anna', password: 'long enough' })).id
      const { id } = await tb.threads.create({ userId: anna }, { title: 'hers' })
      await tb.artifacts.create({ userId: anna }, id, 'bytes of anna', { filename: 'a.txt' })
      await tb.threads.create({ userId: 'someone/../else' }, { title: 'odd' })
    })

    test('export writes a zip that only its owner reads', async () => {
      const path = join(dir, 'anna.zip')
      const ended = await runHere(['gdpr', 'export', 'anna', '-o', path], env)
      expect(ended).toMatchObject(QUIET)
      expect(ended.stdout).toMatch(new RegExp(`^exported ${anna} to \\S+: \\d+ records, [\\d,.]+ \\S+\\n$`))
      expect((await stat(path)).mode & 0o777).toBe(0o600)
      const files = await unzip(await readFile(path))
      expect(JSON.parse(String(files.get('manifest.json'))).user_id).toBe(anna)
      expect([...files.values()].map(String)).toContain('bytes of anna')
      expect(await readdir(dir)).toEqual(['anna.zip'])
    })

    test('export to standard output is the zip alone, and may be cut off', async () => {
      const runPiped = async (read: (out: NodeJS.ReadableStream) => Promise<Buffer>) => {
        const child = spawn(process.execPath, [MAIN, 'gdpr', 'export', 'someone/../else', '-o', '-'], {
          env: { ...childEnv, ...env },
        })
        const stderr = buffer(child.stderr)
        const out = await read(child.stdout)
        const code = await new Promise((resolve) => child.once('close', resolve))
        return { out, code, stderr: String(await stderr) }
      }
      const whole = await runPiped((out) => buffer(out as never))
      expect(whole).toMatchObject({ code: 0, stderr: '' })
      const files = await unzip(whole.out)
      expect(JSON.parse(String(files.get('threads.jsonl'))).title).toBe('odd')
      expect(String(files.get('account.json'))).toBe('null\n')
      const cut = await runPiped(async (out) => {
        const first = await new Promise<Buffer>((resolve) => out.once('data', resolve))
        ;(out as unknown as { destroy(): void }).destroy()
        return first
      })
      expect(cut).toMatchObject({ code: 0, stderr: '' })
    })

    test('export that cannot be written, or is of nobody, leaves no file', async () => {
      for (const [args, code] of [
        [['gdpr', 'export', 'nobody', '-o', join(dir, 'nobody.zip')], 3],
        [['gdpr', 'export', 'anna', '-o', join(dir, 'no', 'such.zip')], 2],
        [['gdpr', 'export', 'anna', '-o', dir], 2],
        [['gdpr', 'export', 'anna'], 2],
      ] as const) {
        const ended = await runHere([...args], env)
        expect(ended.code, ended.stderr).toBe(code)
        expect(ended.stdout).toBe('')
      }
      expect(await readdir(dir)).toEqual(['anna.zip'])
    })

    test('export tells what is missing and ends with 1', async () => {
      await using tb = await openThreadbase({ env })
      const { sha256 } = await tb.files.create({ userId: 'berta' }, 'to be lost')
      await tb.blobs.remove(sha256)
      await tb.close()
      const ended = await runHere(['gdpr', 'export', 'berta', '-o', join(dir, 'berta.zip')], env)
      expect(ended).toMatchObject({
        code: 1,
        stderr: expect.stringMatching(/^missing {2}files \S+ {2}\S+: not in the storage\n$/),
      })
      await rm(join(dir, 'berta.zip'))
    })

    test('erase counts, asks, erases, and says what was erased already', async () => {
      const dry = await runHere(['gdpr', 'erase', 'anna', '--dry-run'], env)
      expect(dry).toMatchObject(QUIET)
      expect(dry.stdout).toMatch(
        /^dry run: .*\n[\s\S]* 1 {2}threads\n[\s\S]* 1 {2}stored files .* 13 bytes\n$/,
      )
      for (const typed of ['anna\n', 'no\n', '']) {
        const refused = await runHere(['gdpr', 'erase', 'anna'], env, typed)
        expect(refused).toMatchObject({ code: 2, stdout: '' })
        expect(refused.stderr).toContain('nothing was removed')
      }
      const erased = await runHere(['gdpr', 'erase', 'anna'], env, `${anna}\n`)
      expect(erased.code, erased.stderr).toBe(0)
      expect(erased.stdout).toMatch(new RegExp(`^erased ${anna}\n`))
      // the name leads to nobody any more, the id does
      expect((await runHere(['gdpr', 'erase', 'anna', '--yes'], env)).code).toBe(3)
      const again = await runHere(['gdpr', 'erase', anna, '--yes'], env)
      expect(again).toMatchObject({
        ...QUIET,
        stdout: expect.stringContaining(`${anna} was erased already, 2`),
      })
      const json = await runHere(['gdpr', 'erase', anna, '--yes', '--json'], env)
      expect(json).toMatchObject(QUIET)
      expect(JSON.parse(json.stdout)).toMatchObject({
        user_id: anna,
        was_erased: true,
        rows: {},
        blobs_left: 0,
      })
    })

    test('readmit lets in again, once', async () => {
      expect(await runHere(['gdpr', 'readmit', anna], env)).toMatchObject({
        ...QUIET,
        stdout: `${anna} may store data again\n`,
      })
      expect((await runHere(['gdpr', 'readmit', anna], env)).code).toBe(3)
    })

    test('without a store there is nothing, and none is made', async () => {
      if (store.name !== 'embedded') return
      const empty = join(dir, 'empty')
      await mkdir(empty)
      for (const args of [
        ['export', 'x', '-o', 'x.zip'],
        ['erase', 'x', '--yes'],
        ['readmit', 'x'],
      ])
        expect((await runHere(['gdpr', ...args], { DATA_DIR: empty })).code).toBe(3)
      expect(await readdir(empty)).toEqual([])
    })
  })
