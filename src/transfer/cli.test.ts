import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createWriteStream, existsSync } from 'node:fs'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { makeTempDir, newSchemaName, postgresUrl, templateFile, testRls } from '../../test/harness.ts'
import { canonicalLines, readSample, SAMPLE_CHATGPT, SAMPLE_LINES, toLines } from '../../test/transfer.ts'
import { silentLog } from '../core/log.ts'
import { openPglite } from '../db/pglite.ts'
import { openPostgres } from '../db/postgres.ts'

const MAIN = fileURLToPath(new URL('../cli/main.ts', import.meta.url))
const sampleFile = fileURLToPath(SAMPLE_LINES)

type Ended = { code: number | null; stdout: string; stderr: string }
type Env = Record<string, string>

const children = new Set<ChildProcess>()

function start(args: string[], env: Env) {
  const { DATABASE_URL: _, DATA_DIR: _dir, ...others } = process.env
  const child = spawn(process.execPath, [MAIN, ...args], { env: { ...others, LOG_LEVEL: 'error', ...env } })
  children.add(child)
  const out = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const)
    child[name].setEncoding('utf8').on('data', (text: string) => {
      out[name] += text
    })
  child.stdin.on('error', () => {})
  const ended = once(child, 'close').then(([code]): Ended => {
    children.delete(child)
    return { code, ...out }
  })
  return { child, ended }
}

async function run(args: string[], env: Env, input: string | Buffer = ''): Promise<Ended> {
  const { child, ended } = start(args, env)
  child.stdin.end(input)
  return ended
}

// a slow machine has time for some
const onlyProgress = expect.stringMatching(/^((import|export) .*\n)*$/)
const said = (n: number) =>
  Array.from({ length: n }, (_, i) => ({ role: i % 2 === 0 ? 'user' : 'assistant', content: `message ${i}` }))
const firstLines = ({ stdout }: Ended) =>
  stdout
    .split('\n')
    .slice(0, 4)
    .map((line) => line.replace(/ +/g, ' '))
const report = (imported: string, known: string, extended: string, refused: string) => [
  `imported ${imported}`,
  `already there ${known}`,
  `extended ${extended}`,
  `refused ${refused}`,
]

test.for([
  ['export'],
  ['import', sampleFile, '--dry-run'],
  ['db', 'current'],
  ['db', 'heads'],
  ['db', 'check'],
  ['db', 'history', '--verbose'],
])('%s does not make a store in a mistyped directory', async (args) => {
  const missing = join(tmpdir(), `threadbase-missing-${process.pid}`)
  const { code, stderr } = await run(args, { DATA_DIR: missing })
  expect([code, stderr]).toEqual([3, `threadbase: there is no embedded store in ${missing}\n`])
  expect(existsSync(missing)).toBe(false)
})

const stores = [
  { name: 'pglite', available: true },
  { name: 'postgres', available: postgresUrl !== null },
]

for (const { name, available } of stores) {
  describe.skipIf(!available)(`threadbase import and export on ${name}`, () => {
    let dir: string
    let env: Env
    beforeAll(async () => {
      dir = await makeTempDir()
      const schema = newSchemaName()
      const store: Env =
        name === 'pglite' ? { DATA_DIR: dir } : { DATABASE_URL: String(postgresUrl), DATABASE_SCHEMA: schema }
      env = { ...store, DATABASE_RLS: testRls }
      if (name === 'pglite') await (await openPglite({ dataDir: dir, templateFile, log: silentLog })).close()
    })
    afterAll(async () => {
      for (const child of children) child.kill('SIGKILL')
      await rm(dir, { recursive: true, force: true })
      if (name === 'pglite') return
      const database = await openPostgres({ url: String(postgresUrl), log: silentLog })
      await sql`drop schema if exists ${sql.id(env.DATABASE_SCHEMA ?? '')} cascade`.execute(database.db)
      await database.close()
    })

    test('the sample goes in from a file and from a pipe, and comes back equal', async () => {
      const first = await run(['import', sampleFile, '--user', 'sample'], env)
      expect([first.code, first.stderr, firstLines(first)]).toEqual([0, '', report('12', '0', '0', '0')])
      expect(first.stdout).toMatch(/34 messages in \d+\.\d s \(\d+ a second\)\n$/)
      const again = await run(['import', '-', '--user', 'sample'], env, gzipSync(readSample(SAMPLE_LINES)))
      expect([again.code, firstLines(again)]).toEqual([0, report('0', '12', '0', '0')])
      const exported = await run(['export', '--user', 'sample'], env)
      expect([exported.code, exported.stderr]).toEqual([0, ''])
      expect(canonicalLines(exported.stdout)).toEqual(canonicalLines(readSample(SAMPLE_LINES)))
      const chatgpt = await run(['import', fileURLToPath(SAMPLE_CHATGPT), '--user', 'gpt'], env)
      expect([chatgpt.code, firstLines(chatgpt)]).toEqual([0, report('3', '0', '0', '0')])
    })

    test('what is refused is listed, all of it in the report, and the exit code says so', async () => {
      const lines = [
        ...Array.from({ length: 30 }, () => '{"messages": 5}\n'),
        toLines({ messages: said(2) }),
        '{"\u001b[31m',
      ]
      const file = join(dir, 'report.json')
      const ended = await run(['import', '-', '--user', 'broken', '--report', file], env, lines.join(''))
      expect([ended.code, firstLines(ended)]).toEqual([1, report('1', '0', '0', '31')])
      expect(ended.stdout).toContain('\n  line 1: it has no array `messages`\n')
      expect(ended.stdout).toContain('\n  and 11 more (--report lists all)\n')
      expect(ended.stdout).not.toContain('\u001b')
      const written = JSON.parse(await readFile(file, 'utf8'))
      expect(written).toMatchObject({
        file: '-',
        user_id: 'broken',
        ended: 'completed',
        imported: 1,
        refused: 31,
        messages: 2,
      })
      expect(written.refusals).toHaveLength(31)
      expect(written.refusals[30]).toEqual({ n: 32, reason: expect.stringContaining('not valid JSON') })
    })

    test('a dry run writes nothing', async () => {
      const ended = await run(['import', sampleFile, '--user', 'dry', '--dry-run'], env)
      expect(ended.stdout).toContain('dry run: nothing was written')
      expect(ended.stdout).toContain('imported       12')
      expect((await run(['export', '--user', 'dry'], env)).stdout).toBe('')
    })

    test('killed in the middle, the next run completes it and stores every message once', async () => {
      const lines = Array.from({ length: 2_400 }, (_, i) =>
        toLines({ id: `k${i}`, messages: said(i % 500 === 7 ? 1_200 : 5) }),
      )
      const { child, ended } = start(['import', '-', '--user', 'killed'], env)
      // the pipe takes no more than it is read: when most has gone in, batches are under way
      for (const line of lines.slice(0, 1_900)) if (!child.stdin.write(line)) await once(child.stdin, 'drain')
      child.kill('SIGKILL')
      expect((await ended).stdout).toBe('')
      const next = await run(['import', '-', '--user', 'killed'], env, lines.join(''))
      expect([next.code, next.stderr]).toEqual([0, onlyProgress])
      const [imported, known, extended] = firstLines(next).map((line) => Number(line.replace(/\D/g, '')))
      expect(Number(imported) + Number(known) + Number(extended)).toBe(2_400)
      expect(imported).toBeGreaterThan(400)
      expect(known).toBeGreaterThan(100)
      const exported = await run(['export', '--user', 'killed'], env)
      expect(canonicalLines(exported.stdout).sort()).toEqual(canonicalLines(lines.join('')).sort())
    })

    test.for([
      ['SIGINT', 'standard input'],
      ['SIGTERM', 'standard input'],
      ['SIGTERM', 'a named pipe'],
    ] as const)(
      '%s ends an import from %s that stays open, with what is stored',
      async ([signal, source]) => {
        const pipe = join(dir, 'pipe')
        if (source === 'a named pipe') execFileSync('mkfifo', [pipe])
        const { child, ended } = start(
          ['import', source === 'a named pipe' ? pipe : '-', '--user', 'stopped'],
          env,
        )
        // open for reading, too: no reader is waited for, and the pipe outlives the process
        const input = source === 'a named pipe' ? createWriteStream(pipe, { flags: 'r+' }) : child.stdin
        const lines = Array.from({ length: 2_000 }, (_, i) => toLines({ id: `c${i}`, messages: said(5) }))
        for (const line of lines) if (!input.write(line)) await once(input, 'drain')
        // by then it waits for more
        await setTimeout(1_000)
        const since = performance.now()
        child.kill(signal)
        const { code, stdout } = await ended
        input.destroy()
        expect(code).toBe(130)
        expect(performance.now() - since).toBeLessThan(10_000)
        expect(stdout).toContain('interrupted: what is reported here is stored; run it again to complete it')
      },
    )

    test('an export to a file appears when it is complete; a reader that goes away is no failure', async () => {
      const file = join(dir, 'out.jsonl')
      const written = await run(['export', '--user', 'sample', '--output', file], env)
      expect([written.code, written.stdout, written.stderr]).toEqual([
        0,
        '',
        'exported 12 threads, 34 messages\n',
      ])
      expect(canonicalLines(await readFile(file, 'utf8'))).toHaveLength(12)
      const { child, ended } = start(['export', '--user', 'killed', '--format', 'markdown'], env)
      child.stdout.once('data', () => child.stdout.destroy())
      expect(await ended).toMatchObject({ code: 0, stderr: onlyProgress })
      const nowhere = await run(
        ['export', '--user', 'sample', '--output', join(dir, 'no', 'such', 'dir')],
        env,
      )
      expect([nowhere.code, nowhere.stderr]).toEqual([
        2,
        expect.stringContaining('cannot be written (ENOENT)'),
      ])
    })

    test('a file that cannot be read is one clear line', async () => {
      const folder = join(dir, 'folder')
      await mkdir(folder)
      const zip = join(dir, 'export.zip')
      await writeFile(zip, Buffer.from('504b0304140000000800', 'hex'))
      const missing = await run(['import', join(dir, 'missing.jsonl')], env)
      expect([missing.code, missing.stderr]).toEqual([
        3,
        expect.stringMatching(/^threadbase: .*missing\.jsonl does not exist\n$/),
      ])
      const directory = await run(['import', folder], env)
      expect([directory.code, directory.stderr]).toEqual([
        2,
        expect.stringMatching(/is a directory, not a file\n$/),
      ])
      const zipped = await run(['import', zip], env)
      expect([zipped.code, zipped.stderr]).toEqual([8, expect.stringContaining('unzip it')])
      const nothing = await run(['import', '-'], env)
      expect([nothing.code, firstLines(nothing)]).toEqual([0, report('0', '0', '0', '0')])
    })
  })
}
