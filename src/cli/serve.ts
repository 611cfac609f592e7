import { Command } from 'commander'
import { ThreadbaseError } from '../core/errors.ts'
import type { AuthMode } from '../identity/service.ts'
import type { Threadbase } from '../threadbase.ts'
import { VERSION } from '../version.ts'
import type { CliContext } from './context.ts'
import { createLog } from './log.ts'

const SIGNALS = ['SIGTERM', 'SIGINT'] as const

/** `threadbase serve`: runs until SIGTERM or SIGINT; a second signal ends it at once. */
export function serveCommand(cli: CliContext): Command {
  return new Command('serve')
    .description('serve the HTTP API (default http://127.0.0.1:4100), migrating the database first')
    .option('--host <address>', 'address to listen on; comes before HOST')
    .option('--port <number>', 'port to listen on, 0 for a free one; comes before PORT')
    .action(async (options: { host?: string; port?: string }) => {
      const config = { ...cli.config() }
      if (options.host !== undefined) config.host = options.host
      if (options.port !== undefined) config.port = parsePort(options.port)
      const log = createLog(config.logLevel, cli.stderr)
      const { startServer } = await import('../server.ts')
      const server = await startServer(config, log)
      const { mode } = config.auth
      const empty = mode === 'accounts' && !(await server.threadbase.identity.users.hasAccounts())
      // who reads the banner may send one at once
      const ending = nextSignal()
      log.info({ auth_mode: mode, url: server.url }, 'listening')
      if (empty)
        log.warn({}, 'there is no user yet: make one with `threadbase users create NAME --superuser`')
      cli.stdout.write(banner(server.url, server.threadbase, { mode, empty }))
      const signal = await ending
      log.info({ signal }, 'shutting down; again to end at once')
      for (const again of SIGNALS) process.once(again, () => process.exit(1))
      await server.close()
    })
}

function parsePort(text: string): number {
  const port = Number(text)
  if (!/^\d+$/.test(text) || port > 65_535) {
    throw new ThreadbaseError('invalid_input', '--port must be a number from 0 to 65535')
  }
  return port
}

const USERS: Record<AuthMode, string> = {
  'single-user': 'single-user mode: everything belongs to user local',
  accounts: 'accounts of this installation; API keys',
  jwt: 'users of an external provider, by its tokens; API keys',
  proxy: 'whom the trusted proxy names; API keys',
}

type Users = { mode: AuthMode /** Nobody can sign in yet. */; empty: boolean }

function banner(url: string, { database, blobs, cache }: Threadbase, users: Users): string {
  return `Threadbase ${VERSION} is listening on ${url}

  store   ${database.description}
  bytes   ${blobs.description}
  cache   ${cache.description}
  users   ${USERS[users.mode]}${users.empty ? '\n          none yet: threadbase users create NAME --superuser (on the embedded store stop first)' : ''}
  docs    ${url}/docs  (OpenAPI: ${url}/openapi.json)

Try it:
  ${firstCall(url, users.mode, database.engine !== 'none')}
`
}

function firstCall(url: string, mode: AuthMode, hasDatabase: boolean): string {
  if (mode === 'single-user' && !hasDatabase) return `curl -s -X POST ${url}/api/conversations`
  if (mode === 'single-user')
    return `curl -s ${url}/api/threads -H 'content-type: application/json' -d '{"title": "Hello"}'`
  if (mode === 'accounts') return `curl -s ${url}/api/login -d username=NAME --data-urlencode password=…`
  const credential =
    mode === 'jwt' ? "-H 'authorization: Bearer TOKEN'" : "-H 'x-proxy-secret: …' -H 'x-user-id: NAME'"
  return `curl -s ${url}/api/${hasDatabase ? 'me' : 'conversations'} ${credential}`
}

function nextSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    for (const signal of SIGNALS) process.once(signal, () => resolve(signal))
  })
}
