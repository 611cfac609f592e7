/** `npm run bench [-- suite …] [--only part …] [--rounds n]`: a table and a JSON line for each suite. */
import { parseArgs } from 'node:util'
import { benchArtifacts } from './artifacts.ts'
import { benchAuth } from './auth.ts'
import { benchCheckpoints } from './checkpoints.ts'
import { benchCompression } from './compression.ts'
import { benchConversations } from './conversations.ts'
import type { BenchOptions } from './harness.ts'
import { benchThreads } from './threads.ts'

const suites: Record<string, (options: BenchOptions) => Promise<void>> = {
  threads: benchThreads,
  auth: benchAuth,
  compression: benchCompression,
  checkpoints: benchCheckpoints,
  artifacts: benchArtifacts,
  conversations: benchConversations,
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { only: { type: 'string', multiple: true }, rounds: { type: 'string' } },
})
const rounds = values.rounds === undefined ? undefined : Math.max(1, Number(values.rounds) || 1)
for (const name of positionals.length === 0 ? Object.keys(suites) : positionals) {
  const suite = suites[name]
  if (suite === undefined) {
    console.error(`there is no benchmark ${name}; there are: ${Object.keys(suites).join(', ')}`)
    process.exitCode = 2
  } else {
    await suite({ only: values.only, rounds })
  }
}
