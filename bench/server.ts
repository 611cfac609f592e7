import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'

export type BenchServer = {
  url: URL /** From start to the first answered request, in ms. */
  readyMs: number
  pid: number
  stop(): Promise<void>
}

/** `threadbase serve` as a process of its own, from the given entry file. */
export async function startServer(entry: string, env: Record<string, string>): Promise<BenchServer> {
  const started = performance.now()
  const child = spawn(process.execPath, [entry, 'serve', '--port', '0'], {
    env: { PATH: process.env.PATH, LOG_LEVEL: 'error', EMBEDDING_MODEL: 'none', ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const url = await readUrl(child)
  const answer = await fetch(new URL('/ready', url))
  if (!answer.ok) throw new Error(`the server is not ready: ${answer.status}`)
  const readyMs = performance.now() - started
  return {
    url,
    readyMs,
    pid: child.pid ?? 0,
    stop: async () => {
      child.kill('SIGTERM')
      if (child.exitCode === null) await once(child, 'exit')
    },
  }
}

function readUrl(child: ChildProcess): Promise<URL> {
  return new Promise((resolve, reject) => {
    let text = ''
    child.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk
      const url = /listening on (\S+)/.exec(text)?.[1]
      if (url !== undefined) resolve(new URL(url))
    })
    child.once('exit', (code) => reject(new Error(`the server ended with code ${code} before it listened`)))
  })
}
