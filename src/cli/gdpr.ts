import { createInterface } from 'node:readline/promises'
import { Command } from 'commander'
import { isThreadbaseError, ThreadbaseError } from '../core/errors.ts'
import type { ErasureCount, ErasureReport } from '../gdpr/schema.ts'
import type { ExportReport } from '../gdpr/service.ts'
import type { Threadbase } from '../threadbase.ts'
import type { CliContext } from './context.ts'
import { formatBytes, formatCount, untilInterrupted } from './interrupt.ts'
import { createProgress } from './progress.ts'
import { writeToStream, writeWholeFile } from './whole-file.ts'
import { withThreadbase } from './with-threadbase.ts'

/** Whoever can run this has the database: what they do is written down all the same. */
const OPERATOR = { userId: 'operator', via: 'cli' } as const
const USER = 'id, username or email'
// it holds all that a user has: nobody else on the machine reads it
const PRIVATE = 0o600

const EXPORT_HELP = `
The zip has a file of JSON Lines for each kind of thing, the bytes of artifacts and files, manifest.json with counts and
SHA-256, and README.txt, which explains them. Secrets are masked. It is written as it is read, in bounded memory, under
another name until it is whole. Bytes that are missing in the storage are named in manifest.json and on standard error;
then the exit code is 1.

On PostgreSQL all rows are as they were at one moment. The embedded store is open in one process at a time: stop the
server first, or use GET /api/users/me/export.`

const ERASE_HELP = `
Removes every row and every byte that is not somebody else's too; what is in the audit log stays. From the first moment
on the user is refused and nothing of theirs is stored, also by work that is still running: until "gdpr readmit".
It asks for the user's id unless --yes is given. After an interruption run it again, by the id, since the name may be
gone: it goes on with what is left.

Backups from before still hold the data. The embedded store is open in one process at a time: stop the server first, or
use DELETE /api/users/me.`

/** `threadbase gdpr …`: what is stored of a user, handed over or erased. */
export function gdprCommand(cli: CliContext): Command {
  const gdpr = new Command('gdpr').description('hand over what is stored of a user, or erase it')
  gdpr
    .command('export')
    .description('write everything of a user to a zip')
    .argument('<user>', USER)
    .requiredOption(
      '-o, --output <file>',
      'the file, which appears when it is complete; - is standard output',
    )
    .addHelpText('after', EXPORT_HELP)
    .action((user: string, { output }: { output: string }) =>
      withThreadbase(cli, (tb) => exportUser(cli, tb, user, output)),
    )
  gdpr
    .command('erase')
    .description('remove everything of a user, for ever')
    .argument('<user>', USER)
    .option('--dry-run', 'count what would be removed, remove nothing')
    .option('--yes', 'do not ask')
    .option('--json', 'print the result as JSON')
    .addHelpText('after', ERASE_HELP)
    .action((user: string, options: EraseOptions) =>
      withThreadbase(cli, (tb) => erase(cli, tb, user, options)),
    )
  gdpr
    .command('readmit')
    .description('let a user in again whose data was erased; nothing comes back')
    .argument('<user>', 'id: an erased account has no name')
    .action((user: string) =>
      withThreadbase(cli, async (tb) => {
        await tb.gdpr.readmit({ userId: user }, OPERATOR)
        cli.stdout.write(`${user} may store data again\n`)
      }),
    )
  return gdpr
}

/** The id of whoever is named. Users without an account are known by their id alone. */
async function resolve(tb: Threadbase, name: string): Promise<string> {
  try {
    return (await tb.identity.users.find(name)).id
  } catch (error) {
    if (isThreadbaseError(error, 'not_found')) return name
    throw error
  }
}

async function exportUser(cli: CliContext, tb: Threadbase, name: string, output: string): Promise<void> {
  const userId = await resolve(tb, name)
  const toStdout = output === '-'
  if (toStdout && cli.stdout.isTTY)
    throw new ThreadbaseError('invalid_input', 'a terminal shows no zip: give a file, or pipe it into one')
  const progress = createProgress(cli.stderr, 'export')
  const said = ({ records, bytes }: { records: number; bytes: number }) =>
    `${formatCount(records)} records, ${formatBytes(bytes)}`
  let counts = { records: 0, bytes: 0 }
  const onProgress = (now: typeof counts) => {
    counts = now
    progress.update(0, said(now))
  }
  let written = false
  let report: ExportReport | undefined
  const interrupted = await untilInterrupted(async (signal) => {
    const archive = await tb.gdpr.export({ userId }, OPERATOR, { onProgress })
    if (toStdout) written = await writeToStream(cli.stdout, archive.stream, signal)
    else await writeWholeFile(output, archive.stream, { signal, mode: PRIVATE })
    report = await archive.report.catch((error) => {
      if (signal.aborted || (toStdout && !written)) return undefined
      throw error
    })
  }).finally(() => progress.stop())
  if (interrupted) cli.setExitCode(130)
  else if (report !== undefined) tellExported(cli, userId, { output, said: said(counts), report })
}

function tellExported(
  cli: CliContext,
  userId: string,
  { output, said, report }: { output: string; said: string; report: ExportReport },
): void {
  if (output !== '-') cli.stdout.write(`exported ${userId} to ${output}: ${said}\n`)
  if (report.missing.length === 0) return
  cli.setExitCode(1)
  for (const { table, id, path, reason } of report.missing)
    cli.stderr.write(`missing  ${table} ${id}${path === undefined ? '' : `  ${path}`}: ${reason}\n`)
}

type EraseOptions = { dryRun?: boolean; yes?: boolean; json?: boolean }

async function erase(cli: CliContext, tb: Threadbase, name: string, options: EraseOptions): Promise<void> {
  const { dryRun, yes, json } = options
  const userId = await resolve(tb, name)
  const earlier = await tb.gdpr.findTombstone({ userId })
  const counted = await tb.gdpr.count({ userId })
  const print = (result: object, lines: string[]) =>
    void cli.stdout.write(json === true ? `${JSON.stringify(result)}\n` : `${lines.join('\n')}\n`)
  if (dryRun === true) {
    const lines = ['dry run: nothing was removed; this would be', ...describe(counted)]
    print({ user_id: userId, dry_run: true, ...toJson(counted) }, lines)
    return
  }
  if (yes !== true) await confirm(cli, userId, counted)
  const total = Object.values(counted.rows).reduce((sum, rows) => sum + rows, 0)
  const progress = createProgress(cli.stderr, 'erase', Math.max(1, total))
  let report: ErasureReport
  try {
    report = await tb.gdpr.erase({ userId }, OPERATOR, {
      onProgress: ({ rows, table }) => progress.update(rows, `${formatCount(rows)} rows, ${table}`),
    })
  } finally {
    progress.stop()
  }
  const { erasedAt, finishedAt, wasErased } = report
  const first = wasErased
    ? `${userId} was erased already, ${earlier?.erasedAt.toISOString()}`
    : `erased ${userId}`
  print(
    {
      user_id: userId,
      erased_at: erasedAt,
      finished_at: finishedAt,
      was_erased: wasErased,
      ...toJson(report),
    },
    [first, ...describe(report)],
  )
}

const toJson = ({ rows, blobs, blobBytes, ...more }: ErasureCount & { blobsLeft?: number }) => ({
  ...{ rows, blobs, blob_bytes: blobBytes },
  ...(more.blobsLeft === undefined ? {} : { blobs_left: more.blobsLeft }),
})

function describe({ rows, blobs, blobBytes, ...more }: ErasureCount & { blobsLeft?: number }): string[] {
  const { blobsLeft = 0 } = more
  return [
    ...Object.entries(rows).map(([table, count]) => `${formatCount(count).padStart(12)}  ${table}`),
    `${formatCount(blobs).padStart(12)}  stored files that nobody else has, ${formatBytes(blobBytes)}`,
    ...(blobsLeft > 0
      ? [
          `${formatCount(blobsLeft).padStart(12)}  that nobody names and that are still there: see threadbase blobs gc`,
        ]
      : []),
  ]
}

/** @throws invalid_input when something else is typed, or nobody is there to type */
async function confirm(cli: CliContext, userId: string, counted: ErasureCount): Promise<void> {
  cli.stderr.write(`This removes for ever what there is of ${userId}:\n${describe(counted).join('\n')}\n`)
  const lines = createInterface({ input: cli.stdin, output: cli.stderr, terminal: cli.stdin.isTTY === true })
  try {
    const closed = new Promise<string>((done) => lines.once('close', () => done('')))
    const typed = await Promise.race([lines.question('Type the id of the user to go on: '), closed])
    if (typed.trim() === userId) return
  } finally {
    lines.close()
  }
  throw new ThreadbaseError(
    'invalid_input',
    'nothing was removed: what was typed is not the id (--yes does not ask)',
  )
}
