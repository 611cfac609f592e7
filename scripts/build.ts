/** Makes `dist/`: JavaScript with declarations, and a prepared embedded store, so that a new one opens in a second. */
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, rmSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { makeTemplate } from './make-template.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const dist = `${root}dist`

rmSync(dist, { recursive: true, force: true })
const tsc = spawnSync(
  process.execPath,
  [`${root}node_modules/typescript/bin/tsc`, '-p', `${root}tsconfig.build.json`],
  {
    stdio: 'inherit',
  },
)
if (tsc.status !== 0) process.exit(tsc.status ?? 1)
chmodSync(`${dist}/cli/main.js`, 0o755)
mkdirSync(`${dist}/embedded`)
await makeTemplate(`${dist}/embedded/template.tar.gz`)
