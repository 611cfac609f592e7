import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { Command, CommanderError } from 'commander'
import { type Config, parseConfig, withDataDir } from '../config.ts'
import { EXIT_CODE, isThreadbaseError, ThreadbaseError } from '../core/errors.ts'
import { VERSION } from '../version.ts'
import { blobsCommand } from './blobs.ts'
import { checkpointsCommand } from './checkpoints.ts'
import type { CliContext } from './context.ts'
import { dbCommand } from './db.ts'
import { embeddingsCommand } from './embeddings.ts'
import { exportCommand } from './export.ts'
import { exportJsonCommand } from './export-json.ts'
import { gdprCommand } from './gdpr.ts'
import { importCommand } from './import.ts'
import { keysCommand } from './keys.ts'
import { createLog } from './log.ts'
import { migrateJsonCommand } from './migrate-json.ts'
import { searchCommand } from './search.ts'
import { serveCommand } from './serve.ts'
import { analysisCommand, sessionsCommand } from './sessions.ts'
import { usageCommand } from './usage.ts'
import { usersCommand } from './users.ts'

export type CliStreams = Pick<CliContext, 'env' | 'stdin' | 'stdout' | 'stderr'>

const ENVIRONMENT = `
Threadbase is configured by environment variables, above all:
  DATABASE_URL   postgres://… ; without it the embedded store in DATA_DIR is used
  DATA_DIR       directory of the embedded store and of files (default .threadbase)
  S3_BUCKET      keeps the bytes of artifacts and files in S3
  HOST, PORT     where to listen (default 127.0.0.1, 4100)
  AUTH_MODE      who may call: single-user (default), accounts, jwt or proxy
All of them: docs/configuration.md

Exit codes: 0 done, 1 failed or differences found, 2 bad input, 3 not found, 4 refused, 5 conflict, 7 unavailable.`

/** The commander program, and what the process should end with once it has run. */
export function createProgram(streams: CliStreams): { program: Command; exitCode(): number } {
  let exitCode = 0
  const program = new Command('threadbase')
  const config = () => configOf(program, streams.env)
  const cli: CliContext = {
    ...streams,
    config,
    // help and refusals need not wait for all of the services
    open: async () => {
      const { openConfigured } = await import('../open-threadbase.ts')
      return openConfigured(config(), createLog(config().logLevel, streams.stderr))
    },
    requireStore: () => requireStore(config()),
    setExitCode: (code) => {
      exitCode = code
    },
  }
  program
    .description(
      'The data plane for LLM agents and chat applications: threads, messages, artifacts and secrets in PostgreSQL and S3, or in an embedded store.',
    )
    .version(VERSION, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print help for a command')
    .option(
      '--data-dir <dir>',
      'directory of the embedded store; comes before DATABASE_URL, S3_BUCKET and DATA_DIR',
    )
    .addHelpText('after', ENVIRONMENT)
    .configureOutput({
      writeOut: (text) => void streams.stdout.write(text),
      writeErr: (text) => void streams.stderr.write(text),
    })
    .showSuggestionAfterError()
    .addCommand(serveCommand(cli))
    .addCommand(usersCommand(cli))
    .addCommand(usageCommand(cli))
    .addCommand(sessionsCommand(cli))
    .addCommand(analysisCommand(cli))
    .addCommand(dbCommand(cli))
    .addCommand(importCommand(cli))
    .addCommand(exportCommand(cli))
    .addCommand(migrateJsonCommand(cli))
    .addCommand(exportJsonCommand(cli))
    .addCommand(checkpointsCommand(cli))
    .addCommand(blobsCommand(cli))
    .addCommand(embeddingsCommand(cli))
    .addCommand(keysCommand(cli))
    .addCommand(searchCommand(cli))
    .addCommand(gdprCommand(cli))
  inherit(program)
  return { program, exitCode: () => exitCode }
}

/** Runs one command line. @returns the exit code; every failure has been told on standard error */
export async function runCli(args: string[], streams: CliStreams): Promise<number> {
  const { program, exitCode } = createProgram(streams)
  try {
    await program.parseAsync(args, { from: 'user' })
    return exitCode()
  } catch (error) {
    return explain(error, streams.stderr)
  }
}

/** Subcommands made elsewhere do not get these from their parent. */
function inherit(command: Command): void {
  for (const child of command.commands) {
    child.copyInheritedSettings(command)
    inherit(child)
  }
  command.exitOverride()
}

function configOf(program: Command, env: CliContext['env']): Config {
  const { dataDir } = program.opts<{ dataDir?: string }>()
  return parseConfig(dataDir === undefined ? env : withDataDir(env, dataDir))
}

function requireStore({ databaseUrl, jsonDir, dataDir }: Config): void {
  if (databaseUrl !== undefined || jsonDir !== undefined || existsSync(join(dataDir, 'pg'))) return
  throw new ThreadbaseError('not_found', `there is no embedded store in ${resolve(dataDir)}`, { dataDir })
}

function explain(error: unknown, stderr: CliContext['stderr']): number {
  // commander has printed its own message; asking for help is no failure, a missing command is
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
  if (isThreadbaseError(error)) {
    stderr.write(`threadbase: ${error.message}\n`)
    return EXIT_CODE[error.code]
  }
  // a file or directory that is not there, not allowed, full: the message says which, and it is no bug of ours
  if (error instanceof Error && 'syscall' in error) {
    stderr.write(`threadbase: ${error.message}\n`)
    return 1
  }
  stderr.write(`threadbase: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
  return 1
}
