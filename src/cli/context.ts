import type { Config } from '../config.ts'
import type { Threadbase } from '../threadbase.ts'

/** What a command may use of the world, so that none reaches for the process itself. */
export type CliContext = {
  env: Record<string, string | undefined>
  stdin: NodeJS.ReadStream
  stdout: NodeJS.WriteStream
  stderr: NodeJS.WriteStream
  /** The configuration of the environment and the global options. @throws invalid_input */
  config(): Config
  /** Threadbase as configured, migrated; the caller closes it. */
  open(): Promise<Threadbase>
  /** What the process ends with when the command has returned. */
  setExitCode(code: number): void
}
