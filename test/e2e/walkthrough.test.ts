import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { delimiter, dirname } from 'node:path'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, test } from 'vitest'
import { childEnv, INSTALL_MS, type InstalledPackage, installedPackage } from './installed.ts'
import { cleanUpAfterAll, type Environment, serve, stop, temporaryDirectory } from './processes.ts'

cleanUpAfterAll()

/** The commands of a page of docs/, in its order. */
function blocksOf(page: string): string[] {
  const text = readFileSync(new URL(`../../docs/${page}`, import.meta.url), 'utf8')
  return [...text.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, commands = '']) => commands)
}

// packing, installing and nine starts of an embedded store, on a machine that is busy with other tests
const SLOW_MS = 300_000

// one that is refused, or a command that fails, ends the script
const STRICT = 'set -euo pipefail\ncurl() { command curl --fail-with-body "$@" && echo; }\n'

describe('the commands of the documentation, with the installed package', () => {
  let installed: InstalledPackage
  let cwd: string
  let env: Environment

  beforeAll(async () => {
    installed = await installedPackage()
    cwd = await temporaryDirectory()
    env = { DATA_DIR: `${cwd}/data`, AUTH_MODE: 'accounts', REGISTRATION: 'true', BCRYPT_COST: '4' }
  }, INSTALL_MS)

  async function bash(script: string, environment = env): Promise<string> {
    const path = [dirname(installed.command), childEnv.PATH].join(delimiter)
    const options = { cwd, env: { ...childEnv, ...environment, PATH: path } }
    const ended = await promisify(execFile)('bash', ['-c', STRICT + script], options).catch((error) => {
      throw new Error(`${error.message}\n${error.stdout}`)
    })
    return ended.stdout
  }

  test(
    'accounts: from nothing to the audit log; then API keys',
    async () => {
      const blocks = blocksOf('sign-in-and-users.md')
      const start = blocks.indexOf('AUTH_MODE=accounts threadbase serve\n')
      const offline = blocks.findIndex((block, i) => i > start && block.startsWith('threadbase users'))
      expect(start).toBe(1)
      expect(offline).toBe(blocks.length - 1)

      expect(await bash(blocks[0] ?? '')).toMatch(
        /^created \S+ {2}anna {2}anna@example\.com {2}superuser {2}active$/m,
      )

      const server = await serve(env, ['--port', '0'], installed.command)
      const here = (script: string) => script.replaceAll('http://127.0.0.1:4100', server.url)
      const said = await bash(here(blocks.slice(start + 1, offline).join('\n')))
      expect(said).toContain('"title":"Trip"')
      expect(said).toContain('"title":"From a page"')
      expect(said).toMatch(/"username":"cleo".*"is_superuser":false/)
      expect(said).toMatch(/"username":"ben".*"is_active":false,"is_superuser":true/)
      for (const action of ['password_changed', 'sign_out', 'user_created', 'data_read', 'user_deactivated'])
        expect(said, action).toContain(`"action":"${action}"`)

      const login = `api=${server.url}/api
      access=$(curl -s $api/login -d username=anna --data-urlencode 'password=four random common words' |
        sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')`
      const keys = await bash(
        `${login}\n${blocksOf('api-keys.md').join('\n')}\n! curl -s $api/me -H "x-api-key: $key"`,
      )
      expect(keys.match(/"title":"From a page"/g)).toHaveLength(2)
      expect(keys).toMatch(/"via":"key","is_superuser":true,"scopes":\["read","write"\]/)
      expect(keys).toContain('the API key is not valid')
      expect(await stop(server)).toMatchObject({ code: 0 })

      const lines = (await bash(blocks[offline] ?? '')).trim().split('\n')
      expect(lines.slice(0, 3).map((line) => line.split('  ')[1])).toEqual(['ben', 'cleo', 'anna'])
      expect(lines.slice(3).map((line) => line.split(' ')[0])).toEqual([
        'promoted',
        'demoted',
        'deactivated',
        'activated',
        'new',
      ])
    },
    SLOW_MS,
  )

  test(
    'files: stored, read, uploaded by the client, collected',
    async () => {
      const single = { DATA_DIR: `${cwd}/files` }
      const blocks = blocksOf('keep-files.md')
      const offline = blocks.pop() ?? ''
      expect(offline).toMatch(/^threadbase blobs gc --dry-run\n/)
      const server = await serve(single, ['--port', '0'], installed.command)
      const said = await bash(blocks.join('\n').replaceAll('http://127.0.0.1:4100', server.url), single)
      expect(said).toContain('"run_id":"r1","tool_call_id":null,"meta":{"rows":1}')
      expect(said).toContain('\nmonth,degrees\nMarch,21\n')
      expect(said).toContain('\nmonth\n')
      for (const name of ['table (1).csv', 'table (2).csv', 'weather.csv'])
        expect(said).toContain(`"name":"${name}"`)
      expect(said.trim().split('\n').at(-1)).toMatch(/"filename":"table\.csv","mime":"text\/csv"/)
      expect(await stop(server)).toMatchObject({ code: 0 })
      const lines = await bash(offline, single)
      expect(lines.match(/^removed +0 blobs/gm)).toHaveLength(2)
      expect(lines).toContain('1 blobs checked, 23 bytes: 0 missing, 0 corrupt')
    },
    SLOW_MS,
  )

  test(
    'sessions: held, analysed, changed, restored, ended',
    async () => {
      const single = { DATA_DIR: `${cwd}/sessions` }
      const blocks = blocksOf('keep-analyses.md')
      const offline = blocks.pop() ?? ''
      expect(offline).toMatch(/^threadbase sessions list\n/)
      const server = await serve(single, ['--port', '0'], installed.command)
      const script = blocks.join('\n').replaceAll('http://127.0.0.1:4100', server.url)
      const said = await bash(`${script}\nprintf 'session=%s\n' "$session" > session.sh`, single)
      expect(said).toContain('"analysis_version":null')
      expect(said).toMatch(/^etag: "1"/m)
      expect(said).toMatch(/"version":2,.*"consequences":"Called in sick"/)
      expect(said).toMatch(/"version":3,.*"consequences":"Missed work"/)
      expect(said).toMatch(/"ended_at":"20\d\d-.*"analysis_version":null/)
      expect(await stop(server)).toMatchObject({ code: 0 })
      const lines = await bash(`. ./session.sh\n${offline}`, single)
      expect(lines).toMatch(/ {2}no analysis {2}"Saturday evening"$/m)
    },
    SLOW_MS,
  )
})
