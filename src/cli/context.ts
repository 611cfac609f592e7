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
  /** Before a command that only reads: it must not make a store. @throws not_found without the embedded store */
  requireStore(): void
  /** What the process ends with when the command has returned. */
  setExitCode(code: number): void
}
