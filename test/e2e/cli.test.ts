import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Command } from 'commander'
import pg from 'pg'
import { beforeAll, describe, expect, test } from 'vitest'
import { createProgram } from '../../src/cli/run.ts'
import { loadMigrations, type Migration } from '../../src/db/migrations.ts'
import { VERSION } from '../../src/version.ts'
import {
  availableStores,
  cleanUpAfterAll,
  type Environment,
  run,
  runHere,
  start,
  temporaryDirectory,
} from './processes.ts'

cleanUpAfterAll()

/** Every command line that names a command, `threadbase` itself first. */
function commandLines(): string[][] {
  const streams = { env: {}, stdin: process.stdin, stdout: process.stdout, stderr: process.stderr }
  const below = (command: Command, path: string[]): string[][] => [
    path,
    ...command.commands.flatMap((child) => below(child, [...path, child.name()])),
  ]
  return below(createProgram(streams).program, [])
}

describe('the command line', () => {
  test('knows the commands that are promised', () => {
    const lines = commandLines().map((path) => path.join(' '))
    const db = ['current', 'history', 'heads', 'upgrade', 'downgrade', 'show', 'stamp', 'revision', 'check']
    expect(lines).toEqual(
      expect.arrayContaining(['serve', 'import', 'export', ...db.map((name) => `db ${name}`)]),
    )
  })

  test.each(commandLines().map((path) => [path]))('%j --help prints its use and no more', async (path) => {
    const { code, stdout, stderr } = await runHere([...path, '--help'])
    expect([code, stderr]).toEqual([0, ''])
    expect(stdout).toMatch(new RegExp(`^Usage: ${['threadbase', ...path].join(' ')}( |$)`, 'm'))
    // says what it does, not only how it is called
    expect(stdout).toMatch(/\n\n\w.*\w/)
    expect((await runHere(['help', ...path.slice(0, 1)])).code).toBe(0)
  })

  test('as processes: --version, --help, a failure, and a reader that goes away', async () => {
    const [version, help, wrong] = await Promise.all([run(['--version']), run(['--help']), run(['serv'])])
    expect(version).toEqual({ code: 0, signal: null, stdout: `${VERSION}\n`, stderr: '' })
    expect(help).toMatchObject({ code: 0, stderr: '', stdout: expect.stringContaining('DATABASE_URL') })
    expect(wrong).toEqual({
      code: 2,
      signal: null,
      stdout: '',
      stderr: "error: unknown command 'serv'\n(Did you mean serve?)\n",
    })
    const unread = start(['db', 'show', 'head'])
    unread.process.stdout?.destroy()
    expect(await unread.exited).toEqual({ code: 0, signal: null })
    expect(unread.stderr()).toBe('')
  })

  test.each([
    [['serv'], "unknown command 'serv'\n(Did you mean serve?)"],
    [['db', 'upgrad'], "unknown command 'upgrad'\n(Did you mean upgrade?)"],
    [['serve', '--prot', '1'], "unknown option '--prot'\n(Did you mean --port?)"],
    [['db', 'history', '--verbos'], "unknown option '--verbos'\n(Did you mean --verbose?)"],
    [['--nope'], "unknown option '--nope'"],
    [['db', 'downgrade', '--nope'], "unknown option '--nope'"],
    [['db', 'downgrade', '-x'], "unknown option '-x'"],
    [['db', 'downgrade'], "missing required argument 'revision'"],
    [['db', 'downgrade', '-1', '-1'], "too many arguments for 'downgrade'"],
    [['db', 'show'], "missing required argument 'revision'"],
    [['db', 'revision'], "required option '-m, --message <text>' not specified"],
    [['serve', 'extra'], "too many arguments for 'serve'"],
    [['serve', '--port'], "option '--port <number>' argument missing"],
    [['serve', '--port', '70000'], '--port must be a number from 0 to 65535'],
    [['serve', '--port', 'x'], '--port must be a number from 0 to 65535'],
  ])('%j exits 2 and says what is wrong', async (args, message) => {
    const { code, stdout, stderr } = await runHere(args, { DATA_DIR: '/nowhere' })
    expect([code, stdout]).toEqual([2, ''])
    expect(stderr).toContain(message)
  })

  test('a missing command prints the help as an error', async () => {
    for (const args of [[], ['db']]) {
      const { code, stdout, stderr } = await runHere(args)
      expect([code, stdout]).toEqual([2, ''])
      expect(stderr).toContain('Usage: threadbase')
    }
  })

  test('show and history need no database', async () => {
    const [migration] = (await loadMigrations()) as [Migration]
    const head = (await loadMigrations()).at(-1) as Migration
    const nowhere = { DATABASE_URL: 'postgres://127.0.0.1:1/none', DATABASE_START_TIMEOUT_S: '0' }
    for (const name of [migration.revision, String(Number(migration.revision)), migration.name]) {
      const { code, stdout } = await runHere(['db', 'show', name], nowhere)
      expect([code, stdout]).toEqual([
        0,
        `-- ${migration.file}\n\n-- up\n\n${migration.up}\n\n-- down\n\n${migration.down}\n`,
      ])
    }
    expect((await runHere(['db', 'show', 'head'], nowhere)).stdout).toContain(head.file)
    const unknown = await runHere(['db', 'show', '9999'], nowhere)
    expect(unknown).toMatchObject({
      code: 3,
      stdout: '',
      stderr: expect.stringContaining('revision 9999 is not known'),
    })
    const { stdout } = await runHere(['db', 'history'], nowhere)
    expect(stdout.trim().split('\n')[0]).toMatch(new RegExp(`-> ${head.revision} ${head.name} \\(head\\)$`))
    expect(stdout.trim().split('\n').at(-1)).toBe(
      `base -> ${migration.revision} ${migration.name}${migration === head || head.file === migration.file ? ' (head)' : ''}`,
    )
    expect((await runHere(['db', 'current'], nowhere)).code).toBe(7)
  })

  test('revision writes the next number, with both parts, and never over another file', async () => {
    const dir = await temporaryDirectory()
    const first = await runHere(['db', 'revision', '-m', 'Add: user "names"!', '--dir', dir])
    expect(first).toMatchObject({ code: 0, stdout: `${join(dir, '0001_add_user_names.sql')}\n` })
    const second = await runHere(['db', 'revision', '--message', 'more', '--dir', dir])
    expect(second.stdout).toBe(`${join(dir, '0002_more.sql')}\n`)
    const migrations = await loadMigrations(dir)
    expect(migrations.map(({ revision, name }) => [revision, name])).toEqual([
      ['0001', 'add_user_names'],
      ['0002', 'more'],
    ])
    expect(readFileSync(join(dir, '0001_add_user_names.sql'), 'utf8')).toContain('Add: user "names"!')
    for (const message of ['', '  ', '!!!'])
      expect((await runHere(['db', 'revision', '-m', message, '--dir', dir])).code).toBe(2)
    expect(readdirSync(dir)).toHaveLength(2)
    const missing = join(dir, 'missing')
    const nowhere = await runHere(['db', 'revision', '-m', 'x', '--dir', missing])
    expect(nowhere.code).toBe(1)
    expect(nowhere.stderr).toMatch(/^threadbase: ENOENT.*missing'?\n$/)
    expect(existsSync(missing)).toBe(false)
  })
})

// each of these opens the store anew, which takes the embedded one a second or two
describe.each(availableStores.slice(-1))('db commands on $name', ({ name, newEnv }) => {
  let env: Environment
  let migrations: Migration[]
  const db = async (...args: string[]) => {
    const { code, stdout, stderr } = await runHere(['db', ...args], env)
    return { code, stdout, stderr }
  }
  const head = () => `${migrations.at(-1)?.revision} ${migrations.at(-1)?.name} (head)`
  const ok = (stdout: string) => ({ code: 0, stdout, stderr: '' })

  beforeAll(async () => {
    env = { ...(await newEnv()), LOG_LEVEL: 'warn' }
    migrations = await loadMigrations()
  })

  test('an empty database: none, all pending, nothing to take back, differs', async () => {
    expect(await db('current')).toEqual(ok('none\n'))
    const pending = migrations.map(({ revision, name }) => `pending: ${revision} ${name}\n`).join('')
    expect(await db('heads')).toEqual(ok(`${head()}\n${pending}`))
    expect(await db('downgrade', '-1')).toMatchObject({ code: 2, stdout: '' })
    expect(await db('history', '--verbose')).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/applied +no/),
    })
    const check = await db('check')
    expect(check.code).toBe(1)
    expect(check.stdout).toContain(
      'table messages\n  expected: table, row level security\n  found:    nothing\n',
    )
  })

  test('upgrade, current, heads, history, check', async () => {
    expect(await db('upgrade', 'nope')).toMatchObject({ code: 3 })
    expect(await db('upgrade', `+${migrations.length + 1}`)).toMatchObject({ code: 2 })
    const upgraded = await db('upgrade')
    expect(upgraded.code).toBe(0)
    expect(upgraded.stdout).toMatch(/^(upgrade {3}\d{4} \w+ \(\d+ ms\)\n)+$/)
    expect(upgraded.stdout.match(/^upgrade/gm)).toHaveLength(migrations.length)
    expect(await db('upgrade', 'head')).toEqual(ok('nothing to do\n'))
    expect(await db('current')).toEqual(ok(`${head()}\n`))
    expect(await db('heads')).toEqual(ok(`${head()}\n`))
    const { stdout } = await db('history', '-v')
    expect(stdout.match(/^Revision /gm)).toHaveLength(migrations.length)
    expect(stdout).toMatch(/^ {2}applied {3}\d{4}-\d\d-\d\dT[\d:.]+Z$/m)
    expect(stdout).toContain(`  checksum  ${migrations[0]?.checksum}`)
    expect(await db('check')).toEqual(ok('no differences\n'))
  })

  test('downgrade -1 and upgrade +1, to a revision, to base', async () => {
    const last = migrations.at(-1) as Migration
    const down = await db('downgrade', '-1')
    expect(down).toMatchObject({
      code: 0,
      stdout: expect.stringContaining(`downgrade ${last.revision} ${last.name}`),
    })
    expect(await db('upgrade', '+1')).toMatchObject({ code: 0, stdout: expect.stringContaining('upgrade') })
    expect(await db('downgrade', last.revision)).toEqual(ok('nothing to do\n'))
    expect(await db('downgrade', '-99')).toMatchObject({ code: 2 })
    expect(await db('downgrade', '9999')).toMatchObject({ code: 3 })
    const all = await db('downgrade', 'base')
    expect(all.stdout.match(/^downgrade/gm)).toHaveLength(migrations.length)
    expect(await db('current')).toEqual(ok('none\n'))
    expect((await db('upgrade', String(Number(last.revision)))).code).toBe(0)
  })

  test('stamp writes the revision down and runs nothing', async () => {
    expect(await db('stamp', 'base')).toEqual(ok('stamped none\n'))
    expect(await db('current')).toEqual(ok('none\n'))
    const check = await db('check')
    expect(check.code).toBe(1)
    expect(check.stdout).toMatch(/^revision \d{4}\n {2}expected: .*\n {2}found: {4}nothing\n/)
    expect(check.stdout.match(/^\w/gm)).toHaveLength(migrations.length)
    expect(await db('stamp', 'head')).toEqual(ok(`stamped ${head()}\n`))
    expect(await db('check')).toEqual(ok('no differences\n'))
    expect(await db('stamp', 'nope')).toMatchObject({ code: 3 })
  })

  test.skipIf(name === 'embedded')('check prints each difference and exits 1', async () => {
    const client = new pg.Client({ connectionString: env.DATABASE_URL })
    await client.connect()
    try {
      const schema = env.DATABASE_SCHEMA
      await client.query(`alter table ${schema}.threads add column extra int; drop index ${schema}.threads_by_update;
        alter table ${schema}.messages alter column text set not null`)
    } finally {
      await client.end()
    }
    const { code, stdout } = await db('check')
    expect(code).toBe(1)
    expect(stdout).toBe(
      `column messages.text\n  expected: text\n  found:    text not null\n` +
        `column threads.extra\n  expected: nothing\n  found:    integer\n` +
        `index threads_by_update\n  expected: CREATE INDEX threads_by_update ON threads USING btree (user_id, updated_at DESC, id DESC)\n  found:    nothing\n`,
    )
  })

  test.skipIf(name === 'embedded')('--data-dir comes before DATABASE_URL', async () => {
    const other = { ...env, ...(await availableStores[0]?.newEnv()) }
    const dir = String(other.DATA_DIR)
    const { code, stdout } = await runHere(['--data-dir', dir, 'db', 'current'], {
      ...env,
      DATA_DIR: '/nowhere',
    })
    expect([code, stdout]).toEqual([0, 'none\n'])
  })
})

test('db commands on the embedded store', async () => {
  const env = { ...(await availableStores[0]?.newEnv()), LOG_LEVEL: 'warn' }
  const db = async (...args: string[]) => runHere(['db', ...args], env)
  expect(await db('upgrade')).toMatchObject({
    code: 0,
    stderr: '',
    stdout: expect.stringMatching(/^upgrade {3}\d{4} /),
  })
  expect(await db('check')).toMatchObject({ code: 0, stdout: 'no differences\n' })
  expect(await db('downgrade', '-1')).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/^downgrade \d{4} /),
  })
  expect(await db('check')).toMatchObject({ code: 1, stdout: expect.stringContaining('found:    nothing') })
  expect(await db('stamp', 'head')).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/^stamped \d{4} /),
  })
  expect(await db('current')).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/^\d{4} \w+ \(head\)\n$/),
  })
})
