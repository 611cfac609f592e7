import { Command } from 'commander'
import type { AdoptReport } from '../checkpoints/service.ts'
import type { Config } from '../config.ts'
import { ThreadbaseError } from '../core/errors.ts'
import { threadCommands } from './checkpoint-threads.ts'
import type { CliContext } from './context.ts'
import { formatBytes, formatCount, untilInterrupted } from './interrupt.ts'
import { createProgress } from './progress.ts'

type Options = { schema: string; user: string; dryRun?: boolean; wholeValues?: boolean; json?: boolean }

const HELP = `
Reads the tables checkpoints, checkpoint_blobs and checkpoint_writes of PostgresSaver and the table store of PostgresStore
(@langchain/langgraph-checkpoint-postgres), and changes nothing there. Both can go on in one database. The rows go from
table to table inside the database; a list, such as messages, is split into its elements, each stored once a thread.

It can be repeated: what is here already stays as it is, what is new there is taken. After an interruption, run it again.
A thread that was deleted here after it was taken is not taken again; checkpoints that were pruned here are, while the
stock tables have them.`

/** `threadbase checkpoints …`: LangGraph's state. */
export function checkpointsCommand(cli: CliContext): Command {
  const checkpoints = new Command('checkpoints').description(
    "LangGraph's state: take it over, look at it, thin it out",
  )
  checkpoints
    .command('adopt')
    .description("take over what LangGraph's own checkpointer and store keep in the same PostgreSQL database")
    .option('--schema <name>', 'the PostgreSQL schema with their tables', 'public')
    .option('--user <id>', 'user who gets the threads and items', 'local')
    .option('--dry-run', 'count what would be taken, write nothing')
    .option('--whole-values', 'split no lists: for threads that were written with a serializer of your own')
    .option('--json', 'print the result as JSON')
    .addHelpText('after', HELP)
    .action((options: Options) => adopt(cli, options))
  for (const command of threadCommands(cli)) checkpoints.addCommand(command)
  return checkpoints
}

async function adopt(cli: CliContext, { schema, user, dryRun, wholeValues, json }: Options): Promise<void> {
  requirePlaintext(cli.config())
  const { adoptCheckpoints } = await import('../checkpoints/service.ts')
  const started = performance.now()
  const tb = await cli.open()
  let progress: ReturnType<typeof createProgress> | undefined
  let report: Readonly<AdoptReport> | undefined
  try {
    const interrupted = await untilInterrupted(async (signal) => {
      try {
        report = await adoptCheckpoints(
          tb.database,
          { userId: user },
          {
            ...{ schema, dryRun, wholeValues, signal },
            onProgress: (done, of, now) => {
              report = now
              progress ??= createProgress(cli.stderr, 'adopt', of)
              progress.update(done, `${formatCount(done)} of ${formatCount(of)} checkpoints and items`)
            },
          },
        )
      } catch (error) {
        if (!signal.aborted) throw error
      }
    })
    progress?.stop()
    if (report === undefined) return
    for (const warning of report.warnings) cli.stderr.write(`threadbase: ${warning}\n`)
    const seconds = (performance.now() - started) / 1_000
    const outcome = { interrupted, dryRun: dryRun ?? false, seconds }
    cli.stdout.write(json === true ? toJson(report, outcome) : describe(report, outcome))
    if (interrupted) cli.setExitCode(130)
  } finally {
    progress?.stop()
    await tb.close()
  }
}

/** @throws invalid_input before anything is opened: the database has no key, and would store what nobody may read */
function requirePlaintext({ databaseUrl, checkpoints }: Config): void {
  const refuse = (variable: string, message: string) => {
    throw new ThreadbaseError('invalid_input', message, { variable })
  }
  if (databaseUrl === undefined)
    refuse(
      'DATABASE_URL',
      'adopt needs DATABASE_URL, the database that has the stock tables: the embedded store has none',
    )
  if (checkpoints.encrypted && !checkpoints.allowPlaintext) {
    refuse(
      'CHECKPOINT_ALLOW_PLAINTEXT',
      'what is adopted stays as it is, not encrypted, and CHECKPOINT_ENCRYPTION would refuse to read it: set CHECKPOINT_ALLOW_PLAINTEXT=true here and on the servers',
    )
  }
}

type Outcome = { interrupted: boolean; dryRun: boolean; seconds: number }

function toJson(report: AdoptReport, { interrupted, dryRun, seconds }: Outcome): string {
  const { threads, checkpoints, writes, items, refusedItems, known, deleted, bytesBefore, bytesAfter } =
    report
  const counts = { threads, checkpoints, writes, items, refused_items: refusedItems, known, deleted }
  const sizes = { bytes_before: bytesBefore, bytes_after: bytesAfter }
  return `${JSON.stringify({ ...counts, ...sizes, interrupted, dry_run: dryRun, seconds })}\n`
}

function describe(report: AdoptReport, { interrupted, dryRun, seconds }: Outcome): string {
  const { threads, checkpoints, writes, items, refusedItems, known, deleted } = report
  const lines = [
    ...(dryRun ? ['dry run: nothing was written; this would be taken'] : []),
    ...(interrupted ? ['interrupted: what is reported here is stored; run it again to complete it'] : []),
    `threads        ${formatCount(threads)}`,
    `checkpoints    ${formatCount(checkpoints)}`,
    `writes         ${formatCount(writes)}`,
    ...(dryRun ? [] : [`store items    ${formatCount(items)}`]),
    `already there  ${formatCount(known)} checkpoints`,
    ...(deleted > 0
      ? [`not taken      ${formatCount(deleted)} checkpoints of threads that were deleted here`]
      : []),
    ...(refusedItems > 0
      ? [
          `refused        ${formatCount(refusedItems)} store items: an empty label, a key that is too long, or no object`,
        ]
      : []),
    sizes(report, dryRun, seconds),
  ]
  return `${lines.join('\n')}\n`
}

function sizes({ bytesBefore, bytesAfter }: AdoptReport, dryRun: boolean, seconds: number): string {
  if (dryRun) return `${formatBytes(bytesBefore)} of values`
  return `${formatBytes(bytesBefore)} → ${formatBytes(bytesAfter)} in ${seconds.toFixed(1)} s`
}
