import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

export type Child = {
  process: ChildProcess
  /** The next line of its output, parsed; undefined when there are no more. */
  nextLine(): Promise<unknown>
  /** All lines that nobody asked for yet, once it has ended. */
  rest(): Promise<unknown[]>
  kill(signal?: NodeJS.Signals): Promise<void>
  exited: Promise<number | null>
}

/** Runs a script of test/children in a process of its own. It writes JSON lines; `input` reaches it as one JSON argument. `through`: a command that runs it, such as unshare. */
export function runChild(script: string, input: object, through: string[] = []): Child {
  const path = fileURLToPath(new URL(`./children/${script}`, import.meta.url))
  const [command = '', ...args] = [...through, process.execPath, '--no-warnings', path, JSON.stringify(input)]
  const child = spawn(command, args, {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { PATH: process.env.PATH },
  })
  const exited = new Promise<number | null>((resolve) => child.once('close', resolve))
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const nextLine = async () => {
    const { value, done } = await lines.next()
    return done ? undefined : JSON.parse(value)
  }
  const rest = async () => {
    const all: unknown[] = []
    for (let line = await nextLine(); line !== undefined; line = await nextLine()) all.push(line)
    return all
  }
  const kill = async (signal: NodeJS.Signals = 'SIGKILL') => {
    child.kill(signal)
    await exited
  }
  return { process: child, nextLine, rest, kill, exited }
}
