import { describe, expect, test } from 'vitest'
import {
  availableStores,
  cleanUpAfterAll,
  type Environment,
  newDataDir,
  runHere,
  serve,
  stop,
} from './processes.ts'

cleanUpAfterAll()

const SECRET = 'a-secret-a-secret-a-secret-a-secret'
const JWT = {
  AUTH_MODE: 'jwt',
  JWT_JWKS_URL: 'http://127.0.0.1:1/jwks',
  JWT_ISSUER: 'https://issuer.example',
}
const without = (variable: keyof typeof JWT): Environment => ({ ...JWT, [variable]: '' })

describe('serve', () => {
  const modes: [mode: string, env: Environment, users: RegExp][] = [
    ['single-user', {}, /everything belongs to user local/],
    ['accounts', { AUTH_MODE: 'accounts', AUTH_SECRET: SECRET }, /accounts of this installation/],
    ['jwt', JWT, /external provider/],
    ['proxy', { AUTH_MODE: 'proxy', PROXY_SECRET: SECRET }, /trusted proxy/],
  ]
  test.each(modes)(
    'says in its banner and its log that the mode is %s, and no secret',
    async (mode, env, users) => {
      const store = await availableStores.at(-1)?.newEnv()
      const HOST = mode === 'single-user' ? '127.0.0.1' : '0.0.0.0'
      const server = await serve({ ...store, ...env, HOST, LOG_LEVEL: 'debug' })
      expect(server.stdout()).toMatch(new RegExp(`^  users   .*${users.source}`, 'm'))
      const url = server.url.replace('0.0.0.0', '127.0.0.1')
      expect((await fetch(`${url}/api/threads`)).status).toBe(mode === 'single-user' ? 200 : 401)
      expect((await fetch(`${url}/health`)).status).toBe(200)
      await stop(server)
      expect(server.stdout() + server.stderr()).not.toContain(SECRET)
    },
  )

  test('on JSON files suggests a call that works there', async () => {
    const env = { AUTH_MODE: 'proxy', PROXY_SECRET: SECRET, DATA_DIR: await newDataDir() }
    const server = await serve({ ...env, DATABASE_URL: `json:${env.DATA_DIR}/json` })
    const path = /curl .*http:\/\/[^/]+(\/\S+)/.exec(server.stdout())?.[1]
    const headers = { 'x-proxy-secret': SECRET, 'x-user-id': 'anna' }
    expect((await fetch(server.url + path, { headers })).status).toBe(200)
    await stop(server)
  })

  test('in accounts mode without a user says how to make one', async () => {
    const env = { ...(await availableStores.at(-1)?.newEnv()), AUTH_MODE: 'accounts', AUTH_SECRET: SECRET }
    const server = await serve(env)
    expect(server.stdout()).toContain('threadbase users create NAME --superuser')
    await stop(server)
    expect(server.stderr()).toContain('there is no user yet')
  })

  test('in accounts mode keeps a secret of its own in the data directory', async () => {
    const DATA_DIR = await newDataDir()
    const env = { DATA_DIR, AUTH_MODE: 'accounts', BCRYPT_COST: '4' }
    await runHere(['users', 'create', 'anna', '--password', 'correct horse'], env)
    const first = await serve(env)
    const body = new URLSearchParams({ username: 'anna', password: 'correct horse' })
    const login = await fetch(`${first.url}/api/login`, { method: 'POST', body })
    const { access_token } = (await login.json()) as { access_token: string }
    await stop(first)
    const again = await serve(env)
    const headers = { authorization: `Bearer ${access_token}` }
    expect((await fetch(`${again.url}/api/me`, { headers })).status).toBe(200)
    await stop(again)
  })

  const refusals: [what: string, env: Environment, variable: string][] = [
    ['an unknown mode', { AUTH_MODE: 'none' }, 'AUTH_MODE'],
    ['jwt without its keys', without('JWT_JWKS_URL'), 'JWT_JWKS_URL'],
    ['jwt without an issuer', without('JWT_ISSUER'), 'JWT_ISSUER'],
    ['keys that are no URL', { ...JWT, JWT_JWKS_URL: 'file:///etc/passwd' }, 'JWT_JWKS_URL'],
    ['a shared secret as a signature', { ...JWT, JWT_ALGORITHMS: 'RS256,HS256' }, 'JWT_ALGORITHMS'],
    ['no signature', { ...JWT, JWT_ALGORITHMS: 'none' }, 'JWT_ALGORITHMS'],
    ['a list of no algorithms', { ...JWT, JWT_ALGORITHMS: ',' }, 'JWT_ALGORITHMS'],
    ['a list of no audiences', { ...JWT, JWT_AUDIENCE: ' , ' }, 'JWT_AUDIENCE'],
    ['a wide clock skew', { ...JWT, JWT_CLOCK_SKEW_S: '601' }, 'JWT_CLOCK_SKEW_S'],
    ['proxy without a secret', { AUTH_MODE: 'proxy' }, 'PROXY_SECRET'],
    ['a short proxy secret', { AUTH_MODE: 'proxy', PROXY_SECRET: 'short-secret' }, 'PROXY_SECRET'],
    ['a short secret', { AUTH_MODE: 'accounts', AUTH_SECRET: 'short-secret' }, 'AUTH_SECRET'],
    ['a short secret in a list', { AUTH_SECRET: `${SECRET},short-secret` }, 'AUTH_SECRET'],
    ['a list of no secrets', { AUTH_MODE: 'accounts', AUTH_SECRET: ',,' }, 'AUTH_SECRET'],
    [
      'accounts in production without a secret',
      { AUTH_MODE: 'accounts', NODE_ENV: 'production', DATABASE_URL: 'postgres://u:hidden-pw@127.0.0.1:1/d' },
      'AUTH_SECRET',
    ],
    ['a quick bcrypt', { BCRYPT_COST: '3' }, 'BCRYPT_COST'],
    ['an endless bcrypt', { BCRYPT_COST: '19' }, 'BCRYPT_COST'],
    ['a bcrypt of words', { BCRYPT_COST: 'twelve' }, 'BCRYPT_COST'],
    ['a token for a day and more', { ACCESS_TOKEN_TTL_S: '86401' }, 'ACCESS_TOKEN_TTL_S'],
    ['no attempts to sign in', { LOGIN_LIMIT_PER_USER: '0' }, 'LOGIN_LIMIT_PER_USER'],
    ['a registration that may be', { REGISTRATION: 'maybe' }, 'REGISTRATION'],
  ]
  test.each(refusals)(
    'refuses %s by the name of the variable, and repeats no secret',
    async (_, env, variable) => {
      const { code, stdout, stderr } = await runHere(['serve', '--port', '0'], {
        DATA_DIR: '/nowhere',
        ...env,
      })
      expect([code, stdout]).toEqual([2, ''])
      expect(stderr).toMatch(new RegExp(`^threadbase: .*\\b${variable}\\b.*\n$`))
      expect(stderr).not.toMatch(/short-secret|hidden-pw|a-secret/)
    },
  )
})
