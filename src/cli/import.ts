import { closeSync, constants, openSync, writeSync } from 'node:fs'
import { type FileHandle, open, stat } from 'node:fs/promises'
import { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { Command, Option } from 'commander'
import { ThreadbaseError } from '../core/errors.ts'
import { IMPORT_FORMATS, type ImportFormat, type ImportReport, type Refusal } from '../transfer/schema.ts'
import type { CliContext } from './context.ts'
import { formatCount, untilInterrupted } from './interrupt.ts'
import { createProgress } from './progress.ts'

type Options = { user: string; dryRun?: boolean; format?: ImportFormat; report?: string }

const HELP = `
Formats, told apart by their content, plain or gzip:
  jsonl    one conversation a line: {"id"?, "title"?, "messages": [{"role", "content", "tool_calls"?, …}], …}
  chatgpt  the conversations.json of a ChatGPT export, with all branches

An import can be repeated: what is there already stays as it is, conversations that have grown get their new
messages. After an interruption, run it again. A conversation that cannot be taken is reported with its line (or
element of the array), and the rest goes on; the exit code is 1 then.`

/** `threadbase import FILE|-` */
export function importCommand(cli: CliContext): Command {
  return new Command('import')
    .description('import conversations from chat JSON Lines or from a ChatGPT export')
    .argument('<file>', 'the file, or - for standard input')
    .option('--user <id>', 'user who gets the conversations', 'local')
    .option('--dry-run', 'read and compare everything, write nothing')
    .addOption(new Option('--format <format>', 'take the file for this format').choices([...IMPORT_FORMATS]))
    .option('--report <file>', 'write a report as JSON, with every refusal')
    .addHelpText('after', HELP)
    .action((file: string, options: Options) => run(cli, file, options))
}

async function run(cli: CliContext, file: string, options: Options): Promise<void> {
  if (options.dryRun === true) cli.requireStore()
  const input = file === '-' ? { stream: cli.stdin, size: undefined } : await openFile(file)
  const writer = options.report === undefined ? undefined : createReportWriter(options.report)
  const tb = await cli.open()
  const started = performance.now()
  const progress = createProgress(cli.stderr, 'import', input.size)
  let report: Readonly<ImportReport> | undefined
  const finish = (ended: string | undefined) => {
    progress.stop()
    const seconds = (performance.now() - started) / 1_000
    if (report !== undefined) cli.stdout.write(describe(report, seconds, ended))
    writer?.end({ file, userId: options.user, ended: ended ?? 'completed', seconds, report })
  }
  try {
    const interrupted = await untilInterrupted(async (signal) => {
      report = await tb.transfer.import({ userId: options.user }, input.stream, {
        format: options.format,
        dryRun: options.dryRun,
        signal,
        onRefused: writer?.add,
        onProgress: (now) => {
          report = now
          progress.update(now.bytes, `${formatCount(now.messages)} messages`)
        },
      })
    })
    finish(interrupted ? 'interrupted' : undefined)
    if (interrupted) cli.setExitCode(130)
    else if (report !== undefined && report.refused > 0) cli.setExitCode(1)
  } catch (error) {
    finish('failed')
    throw error
  } finally {
    // standard input that waits for more would keep the process alive
    input.stream.destroy()
    await tb.close()
  }
}

const PIPE = constants.O_RDONLY | constants.O_NONBLOCK

/** @throws not_found for no such file, invalid_input for a directory and for what cannot be read */
async function openFile(file: string): Promise<{ stream: Readable; size: number | undefined }> {
  const fail = (code: 'not_found' | 'invalid_input', reason: string) =>
    new ThreadbaseError(code, `${file} ${reason}`, { file })
  let handle: FileHandle
  try {
    // a named pipe is read as a socket: a read of a file that waits for more cannot be given up
    const isPipe = (await stat(file)).isFIFO()
    if (isPipe) return { stream: new Socket({ fd: openSync(file, PIPE), writable: false }), size: undefined }
    handle = await open(file)
  } catch (error) {
    const { code } = error as { code?: string }
    throw code === 'ENOENT'
      ? fail('not_found', 'does not exist')
      : fail('invalid_input', `cannot be read (${code})`)
  }
  const found = await handle.stat()
  if (found.isDirectory()) {
    await handle.close()
    throw fail('invalid_input', 'is a directory, not a file')
  }
  return { stream: handle.createReadStream(), size: found.isFile() ? found.size : undefined }
}

const SHOWN_REFUSALS = 20

function describe(report: Readonly<ImportReport>, seconds: number, ended: string | undefined): string {
  const { format, dryRun, imported, known, extended, refused, messages, refusals } = report
  const rate = seconds > 0 && messages > 0 && !dryRun ? ` (${formatCount(messages / seconds)} a second)` : ''
  const place = format === 'jsonl' ? 'line' : 'element'
  const lines = [
    ...(dryRun ? ['dry run: nothing was written; an import would have this result'] : []),
    ...(ended === undefined
      ? []
      : [`${ended}: what is reported here is stored; run it again to complete it`]),
    `imported       ${formatCount(imported)}`,
    `already there  ${formatCount(known)}`,
    `extended       ${formatCount(extended)}`,
    `refused        ${formatCount(refused)}`,
    ...refusals.slice(0, SHOWN_REFUSALS).map(({ n, reason }) => `  ${place} ${n}: ${reason}`),
    ...(refused > SHOWN_REFUSALS
      ? [`  and ${formatCount(refused - SHOWN_REFUSALS)} more (--report lists all)`]
      : []),
    `${formatCount(messages)} messages in ${seconds.toFixed(1)} s${rate}`,
  ]
  return `${lines.join('\n')}\n`
}

type Ending = {
  file: string
  userId: string
  ended: string
  seconds: number
  report: Readonly<ImportReport> | undefined
}

/** Writes refusals as they come: a file of nothing but broken lines must not gather in memory. */
function createReportWriter(path: string) {
  const fd = openReport(path)
  let count = 0
  writeSync(fd, '{"refusals":[')
  return {
    add({ n, reason }: Refusal): void {
      writeSync(fd, `${count++ === 0 ? '' : ','}\n${JSON.stringify({ n, reason })}`)
    },
    end({ file, userId, ended, seconds, report }: Ending): void {
      const { format, dryRun, imported, known, extended, refused, messages, bytes } = report ?? {}
      const counts = { imported, already_there: known, extended, refused, messages, bytes }
      const facts = { file, user_id: userId, ended, format, dry_run: dryRun, ...counts, seconds }
      writeSync(fd, `],\n${JSON.stringify(facts).slice(1)}\n`)
      closeSync(fd)
    },
  }
}

function openReport(path: string): number {
  try {
    return openSync(path, 'w')
  } catch (error) {
    const { code } = error as { code?: string }
    throw new ThreadbaseError('invalid_input', `the report ${path} cannot be written (${code})`, { path })
  }
}
