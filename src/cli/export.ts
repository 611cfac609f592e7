import { createWriteStream } from 'node:fs'
import { rename, rm } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { Command, Option } from 'commander'
import { ThreadbaseError } from '../core/errors.ts'
import { EXPORT_FORMATS, type ExportFormat } from '../transfer/schema.ts'
import type { CliContext } from './context.ts'
import { formatCount, untilInterrupted } from './interrupt.ts'
import { createProgress } from './progress.ts'

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
      if (output === undefined) await writeTo(cli.stdout, pieces, signal)
      else await writeFile(output, pieces, signal)
    })
    progress?.stop()
    if (interrupted) cli.setExitCode(130)
    else if (output !== undefined) cli.stderr.write(`exported ${said()}\n`)
  } finally {
    progress?.stop()
    await tb.close()
  }
}

const codeOf = (error: unknown) => (error as { code?: string } | undefined)?.code

/** Ends quietly when the reader has had enough (`export | head`) or the signal says so. */
async function writeTo(
  stream: NodeJS.WritableStream,
  pieces: AsyncIterable<string>,
  signal: AbortSignal,
): Promise<void> {
  try {
    await pipeline(Readable.from(pieces), stream, { end: false, signal })
  } catch (error) {
    if (codeOf(error) !== 'EPIPE' && !signal.aborted) throw error
  }
}

/** @throws invalid_input when the file cannot be written */
async function writeFile(path: string, pieces: AsyncIterable<string>, signal: AbortSignal): Promise<void> {
  const part = `${path}.${process.pid}.part`
  try {
    await pipeline(Readable.from(pieces), createWriteStream(part), { signal })
    await rename(part, path)
  } catch (error) {
    await rm(part, { force: true })
    if (signal.aborted) return
    const code = codeOf(error)
    if (error instanceof ThreadbaseError || code === undefined) throw error
    throw new ThreadbaseError(
      'invalid_input',
      `${path} cannot be written (${code})`,
      { path },
      { cause: error },
    )
  }
}
