import type { AddressInfo } from 'node:net'
import type { Config } from './config.ts'
import { ThreadbaseError } from './core/errors.ts'
import { requireMigrated } from './db/migrate.ts'
import { loadMigrations } from './db/migrations.ts'
import { type AppOptions, buildApp } from './http/app.ts'
import { isLoopbackAddress } from './http/hosts.ts'
import { logChoice, openConfigured } from './open-threadbase.ts'
import type { Threadbase } from './threadbase.ts'
import { openTraces } from './traces.ts'

export type RunningServer = {
  /** Where it listens, such as http://127.0.0.1:4100. */
  url: string
  threadbase: Threadbase
  /** Takes no new requests, lets those in flight finish for at most `shutdownTimeoutS`, then closes the database, within seconds. */
  close(): Promise<void>
}

/**
 * Opens the database, migrates it if so configured, and listens.
 * @throws invalid_input for an address that single-user mode does not listen on or this machine does not have;
 *   conflict when the port is taken
 */
export async function startServer(config: Config, log: AppOptions['log']): Promise<RunningServer> {
  if (config.auth.mode === 'single-user' && !isLoopbackAddress(config.host)) {
    throw new ThreadbaseError(
      'invalid_input',
      `HOST is ${config.host}, but single-user mode has no sign-in and listens on loopback only (127.0.0.1, ::1 or localhost)`,
      { variable: 'HOST' },
    )
  }
  const { url: tracesUrl } = config.traces
  const traces =
    tracesUrl === undefined ? undefined : await openTraces({ ...config.traces, url: tracesUrl }, log)
  let opened: Threadbase | undefined
  try {
    const threadbase = await openConfigured(config, log, traces?.beginStatement, { background: true })
    opened = threadbase
    logChoice(threadbase, log)
    const migrations = await loadMigrations()
    const revision = async () => {
      await requireMigrated(threadbase.database, migrations)
      return migrations.at(-1)?.revision ?? 'none'
    }
    const app = await buildApp({ ...threadbase, revision }, { ...config, traces, log })
    await listen(app, config)
    const close = async () => {
      await endWithin(app, threadbase.council, config.shutdownTimeoutS * 1_000)
      await threadbase.close()
      await traces?.close()
    }
    return { url: urlOf(app.server.address() as AddressInfo), threadbase, close }
  } catch (error) {
    await opened?.close()
    await traces?.close()
    throw error
  }
}

async function listen(app: Awaited<ReturnType<typeof buildApp>>, { host, port }: Config): Promise<void> {
  try {
    await app.listen({ host, port })
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === undefined || !/^E[A-Z]+$/.test(code)) throw cause
    if (code !== 'EADDRINUSE' && code !== 'EACCES') {
      const details = { variable: 'HOST', code }
      throw new ThreadbaseError('invalid_input', `cannot listen on ${host}: ${code}`, details, { cause })
    }
    const reason = code === 'EACCES' ? 'is not allowed' : 'is in use: stop what listens there or set PORT'
    throw new ThreadbaseError('conflict', `port ${port} on ${host} ${reason}`, { port }, { cause })
  }
}

/** To keep answers that are given up, and to tell those who wait. */
const GIVE_UP_MS = 2_000
const LAST_WORDS_MS = 100

/**
 * A request that takes longer loses its connection; what it waits for ends when the database closes. Answers of the council
 * have the same time, whether somebody waits for them or not; then they are kept as far as they are.
 */
async function endWithin(
  app: Awaited<ReturnType<typeof buildApp>>,
  council: Threadbase['council'],
  ms: number,
): Promise<void> {
  const ended = Promise.all([app.close(), council.idle()]).then(() => true)
  ended.catch(() => {})
  if (await within(ended, ms)) return
  await within(council.close(), GIVE_UP_MS)
  if (!(await within(ended, LAST_WORDS_MS))) app.server.closeAllConnections()
}

/** Undefined when it takes longer. */
async function within<T>(work: Promise<T>, ms: number): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, ms, undefined)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}

function urlOf({ address, family, port }: AddressInfo): string {
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`
}
