import { Command } from 'commander'
import type { WriteLine, WriteReport } from '../conversations/move/schema.ts'
import type { CliContext } from './context.ts'
import { formatCount, untilInterrupted } from './interrupt.ts'
import { printable } from './line-report.ts'
import { toNumber } from './migrate-json.ts'
import { createProgress, type Progress } from './progress.ts'
import { requireSql } from './requires-sql.ts'

type Options = { user?: string; force?: boolean; concurrency?: number }

const HELP = `
Conversations that came from a folder go to their places there. All others go where DIR has that user's conversations
already, else to conversations/{id}.json (user \`local\`) or conversations/{user}/{id}.json. Usage goes to
usage/{user}/usage.json. The time of a file is that of its newest message.

A file with equal JSON is left alone. One with other content is left, too, and reported, and the exit code is 1, unless
--force replaces it. Run it again after an interruption.`

/** `threadbase export-json DIR` */
export function exportJsonCommand(cli: CliContext): Command {
  return new Command('export-json')
    .description('write council conversations and usage as the JSON files of a council')
    .argument('<dir>', 'the data directory; made if there is none')
    .option('--user <id>', "only this user's conversations and usage")
    .option('--force', 'replace files with other content')
    .option(
      '--concurrency <n>',
      'conversations that are read and written at the same time, 1 to 64',
      toNumber,
    )
    .addHelpText('after', HELP)
    .action((dir: string, options: Options) => run(cli, dir, options))
}

const SHOWN_FAILURES = 20

async function run(cli: CliContext, dir: string, options: Options): Promise<void> {
  requireSql(cli, 'export-json')
  cli.requireStore()
  await using tb = await cli.open()
  let report: Readonly<WriteReport> | undefined
  let progress: Progress | undefined
  const failures: WriteLine[] = []
  const finish = (ended: string | undefined) => {
    progress?.stop()
    if (report !== undefined) cli.stdout.write(describe(report, failures, ended))
  }
  try {
    const interrupted = await untilInterrupted(async (signal) => {
      await tb.conversationMove.export(dir, {
        userId: options.user,
        force: options.force,
        concurrency: options.concurrency,
        signal,
        onFile: (line) => {
          if (line.status === 'failed' && failures.length < SHOWN_FAILURES) failures.push(line)
        },
        onProgress: (now) => {
          report = now
          progress ??= createProgress(cli.stderr, 'export-json', now.total)
          const { written, equal, failed } = now.conversations
          progress.update(written + equal + failed, `${formatCount(written)} conversations written`)
        },
      })
    })
    finish(interrupted ? 'interrupted' : undefined)
    if (interrupted) cli.setExitCode(130)
    else if (report !== undefined && countFailed(report) > 0) cli.setExitCode(1)
  } catch (error) {
    finish('failed')
    throw error
  }
}

const countFailed = ({ conversations, usage }: WriteReport) => conversations.failed + usage.failed

function describe(report: Readonly<WriteReport>, failures: WriteLine[], ended: string | undefined): string {
  const row = (name: string, { written, equal, failed }: WriteReport['usage']) =>
    `${name.padEnd(14)} ${formatCount(written)} written, ${formatCount(equal)} equal, ${formatCount(failed)} failed`
  const more = countFailed(report) - failures.length
  const lines = [
    ...(ended === undefined ? [] : [`${ended}: run it again to complete it`]),
    row('conversations', report.conversations),
    row('usage', report.usage),
    ...failures.map(({ file, userId, reason }) => `  ${printable(`${file} (${userId}): ${reason}`)}`),
    ...(more > 0 ? [`  and ${formatCount(more)} more`] : []),
    `${formatCount(report.messages)} messages in ${printable(report.dir)}`,
  ]
  return `${lines.join('\n')}\n`
}
