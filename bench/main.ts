/** `npm run bench [-- suite …]`: a table and a JSON line for each suite. */
import { benchAuth } from './auth.ts'
import { benchCompression } from './compression.ts'
import { benchThreads } from './threads.ts'

const suites: Record<string, () => Promise<void>> = {
  threads: benchThreads,
  auth: benchAuth,
  compression: benchCompression,
}

const asked = process.argv.slice(2)
for (const name of asked.length === 0 ? Object.keys(suites) : asked) {
  const suite = suites[name]
  if (suite === undefined) {
    console.error(`there is no benchmark ${name}; there are: ${Object.keys(suites).join(', ')}`)
    process.exitCode = 2
  } else {
    await suite()
  }
}
