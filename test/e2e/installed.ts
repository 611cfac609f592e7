import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises'
import { delimiter, dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { inject } from 'vitest'

const run = promisify(execFile)
const root = fileURLToPath(new URL('../..', import.meta.url))

/** The environment of child processes: the Node that runs the tests comes first, and no setting of ours leaks in. */
export const childEnv = {
  PATH: [dirname(process.execPath), process.env.PATH].join(delimiter),
  HOME: process.env.HOME,
  // tests of it say so
  EMBEDDING_MODEL: 'none',
}

export type InstalledPackage = {
  /** The empty folder that the package was installed into. */
  directory: string
  /** The archive that `npm pack` made. */
  archive: string
  /** The command as npm installed it. */
  command: string
}

const ATTEMPT_MS = 150_000
/** How long {@link installedPackage} may take, packing and three attempts. */
export const INSTALL_MS = 600_000

/** The package as a user gets it: packed, and installed into an empty folder; once a run, for all test files. */
export async function installedPackage(): Promise<InstalledPackage> {
  const base = join(inject('runDirectory'), 'installed')
  const finished = join(base, 'finished.json')
  const mine = await mkdir(base).then(
    () => true,
    () => false,
  )
  if (mine) {
    await writeFile(`${finished}.new`, JSON.stringify(await install(base).catch(toFailure)))
    await rename(`${finished}.new`, finished)
  }
  while (!existsSync(finished)) await delay(200)
  const result = JSON.parse(await readFile(finished, 'utf8')) as InstalledPackage & { failure?: string }
  if (result.failure !== undefined) throw new Error(result.failure)
  return result
}

async function install(base: string): Promise<InstalledPackage> {
  const packed = join(base, 'packed')
  const directory = join(base, 'consumer')
  await mkdir(packed)
  await mkdir(directory)
  await run('npm', ['pack', '--pack-destination', packed], { cwd: root, env: childEnv })
  const [file = ''] = await readdir(packed)
  const archive = join(packed, file)
  await writeFile(
    join(directory, 'package.json'),
    '{ "name": "consumer", "private": true, "type": "module" }',
  )
  // without peers: npm would ask for dozens of packages that LangChain's own packages name as optional
  const options = ['--prefer-offline', '--no-audit', '--no-fund', '--legacy-peer-deps']
  await installIn(directory, [...options, archive])
  return { directory, archive, command: join(directory, 'node_modules/.bin/threadbase') }
}

/** npm waits for ever now and then, for an answer that does not come: then it is asked again. */
async function installIn(directory: string, args: string[]): Promise<void> {
  const again = 3
  for (let attempt = 1; ; attempt++) {
    try {
      await run('npm', ['install', ...args], {
        cwd: directory,
        env: childEnv,
        ...{ timeout: ATTEMPT_MS, killSignal: 'SIGKILL' },
      })
      return
    } catch (error) {
      if (attempt === again || (error as { killed?: boolean }).killed !== true) throw error
    }
  }
}

function toFailure(error: unknown): { failure: string } {
  const { message, stderr = '' } = error as Error & { stderr?: string }
  return { failure: `${message}\n${stderr}` }
}
