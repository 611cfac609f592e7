import { Readable } from 'node:stream'
import { Command, Option } from 'commander'
import { EXPORT_FORMATS, type ExportFormat } from '../transfer/schema.ts'
import type { CliContext } from './context.ts'
import { formatCount, untilInterrupted } from './interrupt.ts'
import { createProgress } from './progress.ts'
import { writeToStream, writeWholeFile } from './whole-file.ts'

type Options = { user: string; thread?: string; format: ExportFormat; output?: string }

const HELP = `
Formats:
  jsonl     one thread a line, as \`threadbase import\` takes it; what was imported as JSON Lines comes back as equal JSON
  markdown  for reading

Archived threads are included, the oldest thread comes first. Of a thread with branches (edited messages, regenerated
answers) the path to its newest message is exported.`

/** `threadbase export` */
export function exportCommand(cli: CliContext): Command {
  return new Command('export')
    .description('export conversations as chat JSON Lines or Markdown')
    .option('--thread <id>', 'only this thread')
    .option('--user <id>', 'user whose conversations to export', 'local')
    .addOption(new Option('--format <format>', 'what to write').choices([...EXPORT_FORMATS]).default('jsonl'))
    .option(
      '--output <file>',
      'write to this file, which appears when it is complete; default: standard output',
    )
    .addHelpText('after', HELP)
    .action((options: Options) => run(cli, options))
}

async function run(cli: CliContext, { user, thread, format, output }: Options): Promise<void> {
  cli.requireStore()
  const tb = await cli.open()
  // a terminal that shows the export itself needs no progress in between
  const progress = cli.stdout.isTTY && output === undefined ? undefined : createProgress(cli.stderr, 'export')
  let counts = { threads: 0, messages: 0 }
  const said = () => `${formatCount(counts.threads)} threads, ${formatCount(counts.messages)} messages`
  const pieces = tb.transfer.export(
    { userId: user },
    {
      threadId: thread,
      format,
      onProgress: (now) => {
        counts = now
        progress?.update(0, said())
      },
    },
  )
  try {
    const interrupted = await untilInterrupted(async (signal) => {
      if (output === undefined) await writeToStream(cli.stdout, Readable.from(pieces), signal)
      else await writeWholeFile(output, Readable.from(pieces), { signal })
    })
    progress?.stop()
    if (interrupted) cli.setExitCode(130)
    else if (output !== undefined) cli.stderr.write(`exported ${said()}\n`)
  } finally {
    progress?.stop()
    await tb.close()
  }
}
