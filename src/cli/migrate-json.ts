import { realpath } from 'node:fs/promises'
import { dirname, join, resolve, sep } from 'node:path'
import { Command } from 'commander'
import type { BackupReport, MoveLine, MoveReport } from '../conversations/move/schema.ts'
import { ThreadbaseError } from '../core/errors.ts'
import type { Threadbase } from '../threadbase.ts'
import type { CliContext } from './context.ts'
import { formatBytes, formatCount, untilInterrupted } from './interrupt.ts'
import { createLineReport, printable, textFileOf } from './line-report.ts'
import { createProgress, type Progress } from './progress.ts'
import { requireSql } from './requires-sql.ts'

type Options = {
  user?: string
  backup?: string | true
  dryRun?: boolean
  concurrency?: number
  report?: string
}

const HELP = `
DIR is the data directory of a council, the one above it (with data/ in it), or its conversations/:
  conversations/{id}.json          of the user whom the field user_id names, else of --user, else of \`local\`
  conversations/{user}/{id}.json   and {user}/{id}.json: of that user
  usage/{user}/usage.json          tier and counters of that user, unless the database has some

No file is changed. A file that cannot be taken is reported with its reason and position, and the rest goes on; the
exit code is 1 then. Run it again at any time, after an interruption too: it adds what is missing.`

/** `threadbase migrate-json DIR` */
export function migrateJsonCommand(cli: CliContext): Command {
  return new Command('migrate-json')
    .description('move council conversations and usage from JSON files into the database')
    .argument('<dir>', 'the data directory')
    .option('--backup [file]', 'make a verified .tar.gz first; default: beside the directory')
    .option('--user <id>', "only this user's conversations and usage, and files that name no user")
    .option('--dry-run', 'read and compare everything, change nothing')
    .option('--concurrency <n>', 'batches that are read and stored at the same time, 1 to 64', toNumber)
    .option(
      '--report <file>',
      'where to write the report (JSON, and the same as .txt); default: a new one here',
    )
    .addHelpText('after', HELP)
    .action((dir: string, options: Options) => run(cli, dir, options))
}

/** What is no number is refused with the range. */
export const toNumber = (text: string) => (text.trim() === '' ? Number.NaN : Number(text))

async function run(cli: CliContext, dir: string, options: Options): Promise<void> {
  requireSql(cli, 'migrate-json')
  if (options.dryRun === true) cli.requireStore()
  const file = await chooseReport(dir, options.report)
  await using tb = await cli.open()
  const report = createLineReport<object>(file)
  const started = performance.now()
  const state: State = { failures: [] }
  // a move that cannot be reported is told of all the same
  const finish = async (ended: string, error?: unknown) => {
    state.progress?.stop()
    const seconds = (performance.now() - started) / 1_000
    const summary = describe(state, ended, seconds)
    const heading = `threadbase migrate-json ${printable(dir)}\n${summary}\n`
    const text = (line: object) => toText(line as Json)
    const isFailure = (line: object) => (line as Json).status === 'failed'
    try {
      await report.end(toFacts(state, dir, options, ended, seconds, error), heading, text, isFailure)
      cli.stdout.write(`${summary}${describeFailures(state, textFileOf(file))}report: ${file}\n`)
    } catch (problem) {
      cli.stdout.write(`${summary}${describeFailures(state, undefined)}`)
      throw error ?? problem
    }
  }
  let interrupted = false
  try {
    interrupted = await untilInterrupted(async (signal) => {
      try {
        await move(cli, tb, { dir, options, state, signal, add: (line) => report.add(toJson(line)) })
      } catch (error) {
        // a backup ends with an error when it is told to stop
        if (!signal.aborted) throw error
      }
    })
  } catch (error) {
    await finish('failed', error)
    throw error
  }
  await finish(interrupted ? 'interrupted' : 'completed')
  if (interrupted) cli.setExitCode(130)
  else if (countFailed(state.report) > 0) cli.setExitCode(1)
}

type State = {
  report?: Readonly<MoveReport>
  backup?: BackupReport
  progress?: Progress
  /** The first ones. */
  failures: string[]
}
type Work = {
  dir: string
  options: Options
  state: State
  signal: AbortSignal
  add: (line: MoveLine) => void
}

async function move(cli: CliContext, tb: Threadbase, work: Work): Promise<void> {
  const { dir, options, state, signal } = work
  if (options.backup !== undefined && options.dryRun !== true) await backUp(cli, tb, work)
  if (signal.aborted) return
  state.report = await tb.conversationMove.migrate(dir, {
    userId: options.user,
    dryRun: options.dryRun,
    concurrency: options.concurrency,
    signal,
    onFile: (line) => {
      work.add(line)
      if (line.status === 'failed' && state.failures.length < SHOWN_FAILURES)
        state.failures.push(`${line.file}: ${reasonOf(toJson(line))}`)
    },
    onProgress: (now) => {
      state.report = now
      state.progress ??= createProgress(cli.stderr, 'migrate-json', now.files)
      state.progress.update(now.done, `${formatCount(now.done)} files, ${formatCount(now.messages)} messages`)
    },
  })
}

async function backUp(cli: CliContext, tb: Threadbase, { dir, options, state, signal }: Work): Promise<void> {
  const progress = createProgress(cli.stderr, 'backup')
  try {
    state.backup = await tb.conversationMove.backup(dir, {
      file: options.backup === true ? undefined : options.backup,
      signal,
      onProgress: ({ files }) => progress.update(0, `${formatCount(files)} files verified`),
      onRetry: (reason) => cli.stderr.write(`backup  ${printable(reason)}: making it again\n`),
    })
  } finally {
    progress.stop()
  }
}

/** Not in the directory itself, where the next run would find it. */
async function chooseReport(dir: string, given: string | undefined): Promise<string> {
  const root = await realpath(dir).catch(() => resolve(dir))
  const isInside = async (path: string) => {
    const parent = await realpath(dirname(path)).catch(() => dirname(path))
    return parent === root || parent.startsWith(`${root}${sep}`)
  }
  if (given !== undefined) {
    const file = resolve(given)
    if (!(await isInside(file))) return file
    throw new ThreadbaseError('invalid_input', `the report cannot be in ${dir}: name another file`, { file })
  }
  const time = new Date().toISOString().slice(0, 19).replaceAll(':', '-')
  const file = resolve(`migrate-json-report-${time}.json`)
  return (await isInside(file)) ? join(dirname(root), `migrate-json-report-${time}.json`) : file
}

type Json = { file: string; status: string; reason?: string; line?: number; column?: number } & Record<
  string,
  unknown
>

/** A line of the report: what is not there is left out. */
function toJson({ userId, at, other, ...line }: MoveLine): Json {
  return { ...line, user_id: userId, ...at, other_file: other }
}

function reasonOf({ reason = '', line, column }: Json): string {
  return line === undefined ? reason : `${reason} (line ${line}, column ${column})`
}

function toText(line: Json): string {
  const { file, status, id, messages, user_id: user } = line
  const reason = reasonOf(line)
  const what = id === undefined ? '' : `  conversation ${id} of ${user}, ${messages ?? 0} messages added`
  return `${status.padEnd(8)}  ${file}${status === 'failed' || status === 'skipped' ? '' : what}${reason === '' ? '' : `: ${reason}`}`
}

const SHOWN_FAILURES = 20

function countFailed(report: Readonly<MoveReport> | undefined): number {
  if (report === undefined) return 0
  return report.conversations.failed + report.usage.failed + report.others.failed
}

function toFacts(
  { report, backup }: State,
  dir: string,
  options: Options,
  ended: string,
  seconds: number,
  error: unknown,
): object {
  const { conversations, usage, others, messages, files, bytes } = report ?? {}
  return {
    dir: report?.dir ?? resolve(dir),
    user_id: options.user ?? null,
    dry_run: options.dryRun === true,
    ended,
    error: error === undefined ? undefined : error instanceof Error ? error.message : String(error),
    at: new Date().toISOString(),
    seconds,
    backup: backup && {
      file: backup.file,
      files: backup.files,
      bytes: backup.bytes,
      archive_bytes: backup.archiveBytes,
    },
    totals: { files, bytes, messages, failed: countFailed(report), conversations, usage, others },
  }
}

function describe({ report, backup }: State, ended: string, seconds: number): string {
  const row = (name: string, { moved, extended, known, skipped, failed }: MoveReport['usage']) =>
    `${name.padEnd(14)} ${[`${formatCount(moved)} moved`, `${formatCount(extended)} extended`, `${formatCount(known)} known`, `${formatCount(skipped)} skipped`, `${formatCount(failed)} failed`].join(', ')}`
  const lines = [
    ...(backup === undefined
      ? []
      : [
          `backup: ${backup.file} (${formatCount(backup.files)} files, ${formatBytes(backup.archiveBytes)}), verified`,
        ]),
  ]
  if (report === undefined) return `${[...lines, `${ended}: nothing was moved`].join('\n')}\n`
  if (report.dryRun) lines.push('dry run: nothing was changed; a run would have this result')
  if (ended !== 'completed')
    lines.push(`${ended}: what is reported here is stored; run it again to complete it`)
  const rate =
    seconds > 0 && report.messages > 0 && !report.dryRun
      ? ` (${formatCount(report.messages / seconds)} a second)`
      : ''
  lines.push(
    row('conversations', report.conversations),
    row('usage', report.usage),
    row('other files', report.others),
    `${formatCount(report.messages)} messages in ${seconds.toFixed(1)} s${rate}`,
  )
  return `${lines.join('\n')}\n`
}

function describeFailures({ failures, report }: State, textFile: string | undefined): string {
  const more = countFailed(report) - failures.length
  const lines = failures.map((line) => `  ${printable(line)}\n`)
  const where = textFile === undefined ? '' : `: ${textFile} lists all`
  return `${lines.join('')}${more > 0 ? `  and ${formatCount(more)} more${where}\n` : ''}`
}
