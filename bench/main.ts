/** `npm run bench [-- suite …] [--only part …] [--rounds n] [--rows n]`: a table and a JSON line for each suite. */
import { parseArgs } from 'node:util'
import { benchArtifacts } from './artifacts.ts'
import { benchAuth } from './auth.ts'
import { benchCheckpoints } from './checkpoints.ts'
import { benchCompression } from './compression.ts'
import { benchConversations } from './conversations.ts'
import type { BenchOptions } from './harness.ts'
import { benchSearch } from './search.ts'
import { benchThreads } from './threads.ts'

const suites: Record<string, (options: BenchOptions) => Promise<void>> = {
  threads: benchThreads,
  auth: benchAuth,
  compression: benchCompression,
  checkpoints: benchCheckpoints,
  artifacts: benchArtifacts,
  conversations: benchConversations,
  search: benchSearch,
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { only: { type: 'string', multiple: true }, rounds: { type: 'string' }, rows: { type: 'string' } },
})
const countOf = (value: string | undefined) =>
  value === undefined ? undefined : Math.max(1, Number(value) || 1)
const [rounds, rows] = [countOf(values.rounds), countOf(values.rows)]
for (const name of positionals.length === 0 ? Object.keys(suites) : positionals) {
  const suite = suites[name]
  if (suite === undefined) {
    console.error(`there is no benchmark ${name}; there are: ${Object.keys(suites).join(', ')}`)
    process.exitCode = 2
  } else {
    await suite({ only: values.only, rounds, rows })
  }
}
