import { Command } from 'commander'
import type { BlobProblem, CollectReport, VerifyReport } from '../artifacts/service.ts'
import { snakeKeys } from '../core/case.ts'
import type { Threadbase } from '../threadbase.ts'
import type { CliContext } from './context.ts'
import { formatBytes, formatCount } from './interrupt.ts'
import { readSeconds } from './times.ts'
import { withProgress } from './with-progress.ts'
import { withThreadbase } from './with-threadbase.ts'

const GC_HELP = `
Removes bytes that no artifact and no file names any more, and files that have expired. It can run while servers store
and delete, and several times at once. Run it now and then, for example every night by cron; after an interruption, run
it again.

Bytes that the database knows nothing of are removed, too, unless they are more than a tenth of all: then it may be the
wrong database, or one that was put back to an earlier state, and --strays must say that it is not.

Bytes that were stored a moment ago have no name yet: the grace period must be longer than that takes. On the embedded
store stop the server first, or call tb.upkeep.collect() in the process that has it open.`

const VERIFY_HELP = `
Reads the bytes of every artifact and file and compares them with their SHA-256. Changes nothing. Ends with exit code 1
when some are missing or corrupt, and says which artifacts and files have them.`

/** `threadbase blobs …`: the bytes of artifacts and files. */
export function blobsCommand(cli: CliContext): Command {
  const blobs = new Command('blobs').description(
    'the bytes of artifacts and files: remove garbage, look for damage',
  )
  blobs
    .command('gc')
    .description('remove bytes that nothing names')
    .option('--dry-run', 'count what would be removed, remove nothing')
    .option('--grace <time>', 'leave alone what was stored within this time, such as 90s or 12h', '1h')
    .option('--upload-grace <time>', 'the same for uploads that were not completed', '1d')
    .option('--strays', 'remove bytes that the database knows nothing of even when they are many')
    .option('--json', 'print the result as JSON')
    .addHelpText('after', GC_HELP)
    .action((options: Collect) => withThreadbase(cli, (tb) => collect(cli, tb, options)))
  blobs
    .command('verify')
    .description('find bytes that are missing or corrupt')
    .option('--quick', 'only look whether they are there, as many as they should be; read nothing')
    .option('--json', 'print a line of JSON for each problem, and one for the result')
    .addHelpText('after', VERIFY_HELP)
    .action((options: Verify) => withThreadbase(cli, (tb) => verify(cli, tb, options)))
  return blobs
}

type Collect = { dryRun?: boolean; strays?: boolean; grace: string; uploadGrace: string; json?: boolean }

async function collect(cli: CliContext, tb: Threadbase, options: Collect): Promise<void> {
  const graceS = readSeconds('--grace', options.grace)
  const uploadGraceS = readSeconds('--upload-grace', options.uploadGrace)
  const dryRun = options.dryRun ?? false
  let report: CollectReport | undefined
  const interrupted = await withProgress(cli, 'gc', async (signal, tell) => {
    report = await tb.upkeep.collect({
      ...{ graceS, uploadGraceS, dryRun, strays: options.strays, signal },
      onProgress: (share, { removed, removedBytes }) =>
        tell(share, `${formatCount(removed)} removed, ${formatBytes(removedBytes)}`),
    })
  })
  if (report === undefined) return
  const { removed, removedBytes, strays, straysLeft, expiredFiles, expiredUploads, abandonedUploads, young } =
    report
  const lines = [
    ...(dryRun ? ['dry run: nothing was removed; this would be'] : []),
    ...(interrupted ? ['interrupted: run it again to complete it'] : []),
    `removed            ${formatCount(removed)} blobs, ${formatBytes(removedBytes)}`,
    ...(strays > 0 ? [`                   ${formatCount(strays)} of them unknown to the database`] : []),
    ...(straysLeft > 0
      ? [
          `unknown            ${formatCount(straysLeft)} blobs that the database knows nothing of were left alone: is it the right one? (--strays)`,
        ]
      : []),
    `expired files      ${formatCount(expiredFiles)}`,
    `abandoned uploads  ${formatCount(expiredUploads)}${dryRun ? '' : `, and ${formatCount(abandonedUploads)} objects that they left`}`,
    ...(young > 0
      ? [`left alone         ${formatCount(young)} unnamed ones, stored within ${options.grace} (--grace)`]
      : []),
  ]
  cli.stdout.write(
    options.json === true
      ? `${JSON.stringify({ ...snakeKeys(report), dry_run: dryRun, interrupted })}\n`
      : `${lines.join('\n')}\n`,
  )
  if (interrupted) cli.setExitCode(130)
}

type Verify = { quick?: boolean; json?: boolean }

async function verify(cli: CliContext, tb: Threadbase, { quick, json }: Verify): Promise<void> {
  let report: VerifyReport | undefined
  const onProblem = (problem: BlobProblem) =>
    cli.stdout.write(`${json === true ? problemToJson(problem) : describeProblem(problem)}\n`)
  const interrupted = await withProgress(cli, 'verify', async (signal, tell) => {
    report = await tb.upkeep.verify({
      ...{ quick, signal, onProblem },
      onProgress: (share, { checked, checkedBytes }) =>
        tell(share, `${formatCount(checked)} checked, ${formatBytes(checkedBytes)}`),
    })
  })
  if (report === undefined) return
  const { checked, checkedBytes, missing, corrupt, unreadable } = report
  const text = `${formatCount(checked)} blobs checked, ${formatBytes(checkedBytes)}: ${formatCount(missing)} missing, ${formatCount(corrupt)} corrupt, ${formatCount(unreadable)} unreadable${interrupted ? ' (interrupted)' : ''}`
  cli.stdout.write(`${json === true ? JSON.stringify({ ...snakeKeys(report), interrupted }) : text}\n`)
  if (missing + corrupt + unreadable > 0) cli.setExitCode(1)
  else if (interrupted) cli.setExitCode(130)
}

const nameOf = ({ table, id, userId }: BlobProblem['namedBy'][number]) =>
  `${table === 'files' ? 'file' : 'artifact'} ${id} of ${userId}`

function describeProblem({ sha256, problem, size, found, namedBy }: BlobProblem): string {
  const there = found === null || found === size ? '' : `, ${formatCount(found)} there`
  return `${problem}  ${sha256}  ${formatCount(size)} bytes${there}: ${namedBy.map(nameOf).join(', ')}`
}

function problemToJson({ namedBy, ...problem }: BlobProblem): string {
  return JSON.stringify({ ...snakeKeys(problem), named_by: namedBy.map((name) => snakeKeys(name)) })
}
