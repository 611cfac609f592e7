import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { makeCouncilFolder, pathOf } from '../../../test/council-folders.ts'
import { makeTempDir, newSchemaName, postgresUrl, templateFile, testRls } from '../../../test/harness.ts'
import { startTcpProxy } from '../../../test/tcp-proxy.ts'
import { canonicalJson, parseJson } from '../../core/json.ts'
import { silentLog } from '../../core/log.ts'
import { openPglite } from '../../db/pglite.ts'
import { openPostgres } from '../../db/postgres.ts'

const MAIN = fileURLToPath(new URL('../../cli/main.ts', import.meta.url))

type Ended = { code: number | null; stdout: string; stderr: string }
type Env = Record<string, string>

const children = new Set<ChildProcess>()

function start(args: string[], env: Env, cwd: string) {
  const { DATABASE_URL: _, DATA_DIR: _dir, ...others } = process.env
  const child = spawn(process.execPath, [MAIN, ...args], {
    cwd,
    env: { ...others, LOG_LEVEL: 'error', ...env },
  })
  children.add(child)
  const out = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const)
    child[name].setEncoding('utf8').on('data', (text: string) => {
      out[name] += text
    })
  child.stdin.end()
  const ended = once(child, 'close').then(([code]): Ended => {
    children.delete(child)
    return { code, ...out }
  })
  return { child, ended }
}

const stores = [
  { name: 'pglite', available: true },
  { name: 'postgres', available: postgresUrl !== null },
]

/** Conversations by path, in one form. */
async function readConversations(dir: string): Promise<Record<string, string>> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true })
  const files = entries.filter((entry) => entry.isFile() && entry.name !== 'usage.json')
  const read = files.map(async ({ parentPath, name }) => {
    const file = join(parentPath, name)
    return [file.slice(dir.length + 1), canonicalJson(parseJson(await readFile(file, 'utf8')))] as const
  })
  return Object.fromEntries((await Promise.all(read)).sort())
}

for (const { name, available } of stores) {
  describe.skipIf(!available)(`threadbase migrate-json and export-json on ${name}`, () => {
    let parent: string
    let cwd: string
    let dir: string
    let env: Env
    let n = 0
    beforeAll(async () => {
      parent = await makeTempDir()
      const store = join(parent, 'store')
      env = {
        ...(name === 'pglite'
          ? { DATA_DIR: store }
          : { DATABASE_URL: String(postgresUrl), DATABASE_SCHEMA: newSchemaName() }),
        DATABASE_RLS: testRls,
      }
      if (name === 'pglite')
        await (await openPglite({ dataDir: store, templateFile, log: silentLog })).close()
    })
    afterAll(async () => {
      for (const child of children) child.kill('SIGKILL')
      await rm(parent, { recursive: true, force: true })
      if (name === 'pglite') return
      const database = await openPostgres({ url: String(postgresUrl), log: silentLog })
      await sql`drop schema if exists ${sql.id(env.DATABASE_SCHEMA ?? '')} cascade`.execute(database.db)
      await database.close()
    })
    beforeEach(async () => {
      cwd = join(parent, `run ${++n}`)
      dir = join(cwd, 'data')
      await mkdir(dir, { recursive: true })
    })

    const run = (...args: string[]) => start(args, env, cwd).ended
    const rows = ({ stdout }: Ended) =>
      stdout
        .split('\n')
        .filter((line) => /^(conversations|usage|other files) /.test(line))
        .map((line) => line.replace(/ +/g, ' '))
    const report = async (file = 'r.json') => JSON.parse(await readFile(join(cwd, file), 'utf8'))

    test('a folder goes in, with a backup and a report, again, and comes back', async () => {
      await makeCouncilFolder(dir, { odd: true, conversations: 9, seed: n })
      const first = await run('migrate-json', 'data', '--backup', '--report', 'r.json')
      expect(first.stderr).toMatch(/^((migrate-json|backup) .*\n)*$/)
      expect([first.code, rows(first)]).toEqual([
        0,
        [
          'conversations 9 moved, 0 extended, 0 known, 0 skipped, 0 failed',
          expect.stringMatching(/^usage [1-9]/),
          'other files 0 moved, 0 extended, 0 known, 0 skipped, 0 failed',
        ],
      ])
      const [backup] = (await readdir(cwd)).filter((file) => file.endsWith('.tar.gz'))
      expect(first.stdout).toContain(`backup: ${join(cwd, String(backup))} (`)
      expect(first.stdout).toMatch(/\nreport: .*\/r\.json\n$/)
      expect(await report()).toMatchObject({
        dir,
        user_id: null,
        dry_run: false,
        ended: 'completed',
        backup: { file: join(cwd, String(backup)), archive_bytes: expect.any(Number) },
        totals: { failed: 0, conversations: { moved: 9 } },
      })
      expect(
        (await readFile(join(cwd, 'r.txt'), 'utf8')).split('\n').filter((line) => line.startsWith('moved'))
          .length,
      ).toBe((await report()).files.length)
      const again = await run('migrate-json', 'data')
      expect([again.code, rows(again)[0]]).toEqual([
        0,
        'conversations 0 moved, 0 extended, 9 known, 0 skipped, 0 failed',
      ])
      const usual = (await readdir(cwd)).filter((file) => file.startsWith('migrate-json-report-'))
      expect(usual.map((file) => file.replace(/\d[\d-]+T[\d-]+/, 'TIME')).sort()).toEqual([
        'migrate-json-report-TIME.json',
        'migrate-json-report-TIME.txt',
      ])
      const back = await run('export-json', 'back')
      expect([back.code, back.stdout]).toEqual([
        0,
        expect.stringMatching(/^conversations +9 written, 0 equal, 0 failed\n/),
      ])
      expect(await readConversations(join(cwd, 'back'))).toEqual(await readConversations(dir))
      expect((await run('export-json', 'data')).stdout).toMatch(
        /^conversations +0 written, 9 equal, 0 failed\n/,
      )
      const path = Object.keys(await readConversations(dir))[0] as string
      await writeFile(join(dir, path), '{}')
      const refused = await run('export-json', 'data')
      expect([refused.code, refused.stdout]).toEqual([1, expect.stringContaining('--force replaces')])
      expect((await run('export-json', 'data', '--force')).code).toBe(0)
      await run('export-json', 'one', '--user', 'firebase-0')
      expect(new Set(Object.keys(await readConversations(join(cwd, 'one'))).map(dirname))).toEqual(
        new Set(['firebase-0']),
      )
    })

    test('broken files are told with their places, all others are moved, and the exit code says so', async () => {
      const made = await makeCouncilFolder(dir, { broken: true, conversations: 6, seed: 100 })
      const dry = await run('migrate-json', 'data', '--dry-run', '--backup', '--report', 'dry.json')
      expect([dry.code, dry.stdout]).toEqual([1, expect.stringContaining('dry run: nothing was changed')])
      const ended = await run('migrate-json', 'data', '--report', 'r.json', '--concurrency', '2')
      expect([ended.code, rows(ended)]).toEqual([1, rows(dry)])
      expect(ended.stdout).toContain(
        '\n  conversations/broken/nan.json: is no JSON: NaN is a number to Python only (line 4, column 12)\n',
      )
      const { files, totals } = await report()
      expect(
        files
          .map(({ file, status }: { file: string; status: string }) =>
            `${file} ${status}`.replace('known', 'moved'),
          )
          .sort(),
      ).toEqual(made.map(({ path, status }) => `${path} ${status}`).sort())
      expect(totals.failed).toBe(made.filter(({ status }) => status === 'failed').length)
      expect(files).toContainEqual({
        file: 'conversations/broken/comma.json',
        kind: 'conversation',
        status: 'failed',
        user_id: 'broken',
        id: 'comma',
        reason: 'is no JSON',
        position: 16,
        line: 1,
        column: 17,
      })
      const order = (lines: object[]) => lines.map((line) => JSON.stringify(line)).sort()
      expect(order((await report('dry.json')).files)).toEqual(order(files))
      expect((await readdir(cwd)).filter((file) => file.endsWith('.gz') || file.startsWith('.'))).toEqual([])
      expect(await readFile(join(cwd, 'r.txt'), 'utf8')).toMatch(
        /\nfailed +conversations\/broken\/binary\.json: is not UTF-8 \(line 2, column 2\)\n/,
      )
    })

    test('killed again and again, it loses nothing and stores nothing twice', async () => {
      const count = name === 'pglite' ? 250 : 600
      await makeCouncilFolder(dir, {
        conversations: count,
        messages: 10,
        layouts: ['nested', 'user'],
        seed: 200 + n,
      })
      const long = {
        id: 'long',
        messages: Array.from({ length: 6_000 }, (_, i) => ({ role: 'user', content: `m${i}` })),
      }
      await writeFile(join(dir, pathOf('nested', 'clerk-0', 'long')), JSON.stringify(long))
      for (const delay of [0, 40, 90, 10]) {
        const args = ['migrate-json', 'data', '--report', 'r.json', '--concurrency', '2']
        const { child, ended } = start(args, env, cwd)
        // lines of the report are written when a batch is stored: by then others are under way
        const lines = join(cwd, `.r.json.${child.pid}.part`)
        while (child.exitCode === null && ((await stat(lines).catch(() => undefined))?.size ?? 0) === 0)
          await setTimeout(5)
        await setTimeout(delay)
        child.kill('SIGKILL')
        expect((await ended).code).toBe(null)
      }
      const next = await run('migrate-json', 'data', '--report', 'r.json')
      expect(next.code).toBe(0)
      const { totals } = await report()
      expect(totals.conversations.moved + totals.conversations.known).toBe(count + 1)
      // some were stored by those that were killed
      expect(totals.conversations.known).toBeGreaterThan(0)
      expect([totals.conversations.extended, totals.conversations.failed]).toEqual([0, 0])
      await run('export-json', 'back')
      const [back, there] = [await readConversations(join(cwd, 'back')), await readConversations(dir)]
      for (const [path, json] of Object.entries(there))
        if (back[path] !== json) expect([path, back[path]]).toEqual([path, json])
      const known = await run('migrate-json', 'data')
      expect([known.code, rows(known)[0]]).toEqual([
        0,
        `conversations 0 moved, 0 extended, ${count + 1} known, 0 skipped, 0 failed`,
      ])
    })

    test('Ctrl-C ends it with a report of what is stored; another run completes it', async () => {
      await makeCouncilFolder(dir, { conversations: 2_000, messages: 6, layouts: ['nested'], seed: 300 })
      const { child, ended } = start(
        ['migrate-json', 'data', '--report', 'r.json', '--concurrency', '1'],
        env,
        cwd,
      )
      while (!(await readdir(cwd)).some((file) => file.endsWith('.part'))) await setTimeout(10)
      await setTimeout(200)
      child.kill('SIGINT')
      const stopped = await ended
      expect([stopped.code, stopped.stdout]).toEqual([130, expect.stringContaining('interrupted')])
      const first = await report()
      expect([first.ended, first.files.length]).toEqual([
        'interrupted',
        first.totals.conversations?.moved ?? 0 + (first.totals.usage?.moved ?? 0),
      ])
      expect(await readdir(cwd)).toEqual(expect.not.arrayContaining([expect.stringMatching(/^\./)]))
      const next = await run('migrate-json', 'data', '--report', 'r.json')
      expect(next.code).toBe(0)
      const { conversations } = (await report()).totals
      expect(conversations.moved + conversations.known).toBe(2_000)
    })

    test('a mistake is one clear line, and changes nothing', async () => {
      await makeCouncilFolder(dir, { conversations: 2 })
      for (const [args, code, text] of [
        [['nowhere'], 3, 'nowhere does not exist'],
        [['data', '--concurrency', 'many'], 2, 'concurrency must be'],
        [['data', '--report', 'data/r.json'], 2, 'the report cannot be in data'],
        [['data', '--report', 'no/such/r.json'], 2, 'cannot be written'],
        [['data', '--backup', 'data/b.tar.gz'], 2, 'cannot be in it'],
        [['data', '--user', ''], 2, 'userId'],
      ] as const) {
        const ended = await run('migrate-json', ...args)
        expect([ended.code, ended.stderr]).toEqual([code, expect.stringContaining(text)])
        expect(ended.stderr).toMatch(/^threadbase: [^\n]*\n$/)
      }
      const json = { ...env, DATABASE_URL: 'json:./data' }
      for (const command of ['migrate-json', 'export-json']) {
        const { code, stderr } = await start([command, 'data'], json, cwd).ended
        expect([code, stderr]).toEqual([8, expect.stringContaining(`${command} needs SQL`)])
      }
    })

    test.runIf(name === 'postgres')(
      'a database that goes away stops it, with a report; another run completes it',
      async () => {
        await makeCouncilFolder(dir, { conversations: 1_500, messages: 6, layouts: ['nested'], seed: 400 })
        const url = new URL(String(postgresUrl))
        const proxy = await startTcpProxy({ host: url.hostname, port: Number(url.port) })
        url.port = String(proxy.port)
        const { ended } = start(
          ['migrate-json', 'data', '--report', 'r.json', '--concurrency', '1'],
          { ...env, DATABASE_URL: url.href },
          cwd,
        )
        while (!(await readdir(cwd)).some((file) => file.endsWith('.part'))) await setTimeout(10)
        await setTimeout(200)
        proxy.cut()
        const { code, stderr, stdout } = await ended
        await proxy.close()
        expect([code, stderr]).toEqual([7, expect.stringContaining('the database is not reachable')])
        expect(stdout).toContain('failed: ')
        expect(await report()).toMatchObject({
          ended: 'failed',
          error: expect.stringContaining('not reachable'),
        })
        const next = await run('migrate-json', 'data', '--report', 'r.json')
        expect(next.code).toBe(0)
        const { conversations } = (await report()).totals
        expect(conversations.moved + conversations.known).toBe(1_500)
      },
    )

    test('the time of a file comes back', async () => {
      const file = join(dir, 'conversations/time.json')
      await mkdir(dirname(file))
      await writeFile(
        file,
        JSON.stringify({
          id: 'time',
          created_at: '2024-01-01T00:00:00',
          title: 't',
          messages: [{ role: 'user', content: 'x' }],
        }),
      )
      const time = new Date('2024-02-03T04:05:06.789Z')
      await utimes(file, time, time)
      await run('migrate-json', 'data')
      await run('export-json', 'back', '--user', 'local')
      expect((await stat(join(cwd, 'back/conversations/time.json'))).mtime).toEqual(time)
    })
  })
}
