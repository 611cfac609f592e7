import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { beforeAll, describe, expect, test, vi } from 'vitest'
import { childEnv } from './installed.ts'
import {
  availableStores,
  cleanUpAfterAll,
  type Environment,
  newDataDir,
  run,
  runHere,
  serve,
  stop,
  temporaryDirectory,
} from './processes.ts'

cleanUpAfterAll()

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))
const PASSWORD = 'correct horse'

describe.each(availableStores)('threadbase users on $name', ({ newEnv }) => {
  let env: Environment
  beforeAll(async () => {
    env = { ...(await newEnv()), BCRYPT_COST: '4', LOG_LEVEL: 'silent' }
  })
  const users = (args: string[], input = '') => runHere(['users', ...args], env, input)
  const listed = async () =>
    (await users(['list', '--json'])).stdout
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line))
  const find = async (username: string) => (await listed()).find((user) => user.username === username)

  test('create makes an account, with a password of an option or of standard input', async () => {
    const more = ['--email', 'Anna@Example.com', '--name', 'Anna Ä', '--superuser']
    const made = await users(['create', 'Anna', '--password', PASSWORD, ...more])
    expect(made).toMatchObject({ code: 0, stderr: '' })
    expect(made.stdout).toMatch(
      /^created [0-9a-f-]{36} {2}anna {2}anna@example\.com {2}superuser {2}active\n$/,
    )
    expect(await users(['create', 'ben'], `${PASSWORD}\nsomething else\n`)).toMatchObject({ code: 0 })
    expect(await users(['create', 'cleo'], `${PASSWORD}\r\n`)).toMatchObject({ code: 0 })
    expect(await find('anna')).toMatchObject({ name: 'Anna Ä', isSuperuser: true, isActive: true })
    for (const text of [made.stdout, (await users(['list'])).stdout, JSON.stringify(await listed())])
      expect(text).not.toMatch(/correct horse|\$2b\$|password/i)
  })

  test.each([
    ['a username that is taken', ['create', 'ANNA', '--password', PASSWORD], '', 5, /taken/],
    [
      'an email that is taken',
      ['create', 'dora', '--password', PASSWORD, '--email', 'anna@example.COM'],
      '',
      5,
      /taken/,
    ],
    ['no password', ['create', 'dora'], '', 2, /there is no password/],
    ['an empty line for a password', ['create', 'dora'], '\nlonger than eight\n', 2, /there is no password/],
    ['a short password', ['create', 'dora'], 'short\n', 2, /password/],
    ['a name with an @', ['create', 'do@ra', '--password', PASSWORD], '', 2, /user\.username/],
    ['a bad email', ['create', 'dora', '--password', PASSWORD, '--email', 'x'], '', 2, /email/],
    ['no name', ['create'], '', 2, /missing required argument/],
    ['an unknown option', ['create', 'dora', '--admin'], '', 2, /unknown option/],
    ['nobody', ['deactivate', 'nobody'], '', 3, /user nobody does not exist/],
    ['nobody’s password', ['reset-password', 'nobody', '--password', PASSWORD], '', 3, /does not exist/],
    ['an unknown command', ['remove', 'anna'], '', 2, /unknown command/],
  ])('%s is refused in one line', async (_, args, input, code, message) => {
    const result = await users(args, input)
    expect([result.code, result.stdout]).toEqual([code, ''])
    expect(result.stderr).toMatch(message)
    expect(result.stderr).not.toMatch(/ {4}at |correct horse/)
  })

  test('deactivate, activate, promote and demote by username, email and id', async () => {
    const { id } = await find('anna')
    const names = ['anna', 'ANNA', 'anna@example.com', id]
    const steps: [command: string, said: string, state: object][] = [
      ['deactivate', 'deactivated', { isActive: false }],
      ['activate', 'activated', { isActive: true }],
      ['demote', 'demoted', { isSuperuser: false }],
      ['promote', 'promoted', { isSuperuser: true }],
    ]
    for (const [i, [command, said, state]] of steps.entries()) {
      const result = await users([command, String(names[i])])
      expect(result, command).toMatchObject({ code: 0, stderr: '' })
      expect(result.stdout).toMatch(new RegExp(`^${said} ${id} `))
      expect(await find('anna')).toMatchObject(state)
    }
  })

  test('reset-password sets another one, and both are good for nothing else', async () => {
    expect(await users(['reset-password', 'ben'], 'another horse\n')).toMatchObject({ code: 0 })
    const server = await serve({
      ...env,
      AUTH_MODE: 'accounts',
      AUTH_SECRET: 'x'.repeat(32),
      LOG_LEVEL: 'info',
    })
    const logIn = async (password: string) => {
      const body = new URLSearchParams({ username: 'ben', password })
      return (await fetch(`${server.url}/api/login`, { method: 'POST', body })).status
    }
    expect([await logIn(PASSWORD), await logIn('another horse')]).toEqual([401, 200])
    await stop(server)
    expect(server.stdout() + server.stderr()).not.toMatch(/horse|xxxx/)
  })
})

describe('threadbase users', () => {
  test('has help that says what each command does', async () => {
    const { code, stdout } = await runHere(['users', '--help'])
    expect(code).toBe(0)
    for (const command of ['create', 'list', 'deactivate', 'activate', 'promote', 'demote', 'reset-password'])
      expect(stdout).toMatch(new RegExp(`^  ${command} .*\\w`, 'm'))
    expect((await runHere(['users', 'create', '--help'])).stdout).toMatch(
      /--password <text> .*standard input/s,
    )
  })

  test('makes no store to look for a user in', async () => {
    const DATA_DIR = await temporaryDirectory()
    for (const args of [['list'], ['promote', 'anna']])
      expect(await runHere(['users', ...args], { DATA_DIR })).toMatchObject({
        code: 3,
        stderr: expect.stringContaining('there is no embedded store'),
      })
  })

  test('says who has the embedded store while a server has it open', async () => {
    const DATA_DIR = await newDataDir()
    const server = await serve({ DATA_DIR })
    const { code, stderr } = await run(['users', 'list'], { DATA_DIR })
    expect(code).toBe(5)
    expect(stderr).toContain(`in use by process ${server.pid}`)
    await stop(server)
  })

  // what of util-linux makes a terminal
  const hasTerminal = process.platform === 'linux' && existsSync('/usr/bin/script')
  test.skipIf(!hasTerminal).each([
    ['the same twice', [PASSWORD, PASSWORD], 0, /created .* {2}terminal {2}/],
    ['two that differ', [PASSWORD, 'correct house'], 2, /the two passwords differ/],
    ['nothing', [''], 2, /there is no password/],
  ])('asks for the password on a terminal, unseen (%s)', async (_, typed, code, said) => {
    const DATA_DIR = await newDataDir()
    const command = `"${process.execPath}" "${MAIN}" users create terminal`
    const child = spawn('/usr/bin/script', ['-qec', command, '/dev/null'], {
      env: { ...childEnv, DATA_DIR, BCRYPT_COST: '4', LOG_LEVEL: 'silent', TERM: 'xterm' },
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    let shown = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      shown += text
    })
    const exited = new Promise((resolve) => child.once('close', resolve))
    for (const [i, text] of typed.entries()) {
      const prompt = i === 0 ? /Password for terminal:/ : /The same again:/
      await vi.waitFor(() => expect(shown).toMatch(prompt), { timeout: 30_000 })
      child.stdin.write(`${text}\r`)
    }
    expect(await exited).toBe(code)
    expect(shown).toMatch(said)
    expect(shown).not.toMatch(/correct ho/)
  })
})
