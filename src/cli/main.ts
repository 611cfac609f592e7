#!/usr/bin/env node
import { enableCompileCache } from 'node:module'

// what is compiled once need not be compiled at the next start; where that cannot be kept, nothing is lost
enableCompileCache()
const { runCli } = await import('./run.ts')

// a reader that has seen enough, such as `head`, is no failure of ours
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
  })
}

process.exitCode = await runCli(process.argv.slice(2), {
  env: process.env,
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
})
