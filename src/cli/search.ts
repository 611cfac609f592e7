import { Command, InvalidArgumentError, Option } from 'commander'
import { LOCAL_USER } from '../core/scope.ts'
import { SEARCH_MODES, type SearchHit, type SearchMode, type SearchPage } from '../search/schema.ts'
import type { CliContext } from './context.ts'
import { formatCount, untilInterrupted } from './interrupt.ts'
import { createProgress } from './progress.ts'
import { withThreadbase } from './with-threadbase.ts'

type QueryOptions = {
  user: string
  mode?: SearchMode
  limit: number
  archived?: boolean
  json?: boolean
}
type ReindexOptions = { status?: boolean; json?: boolean }

/** `threadbase search …`: find what was said. */
export function searchCommand(cli: CliContext): Command {
  const search = new Command('search').description('find what was said, and keep the words of texts right')

  search
    .command('query', { isDefault: true })
    .description('print where a user has what is looked for, best first')
    .argument('<words...>', 'what to look for')
    .option('--user <id>', 'whose messages', LOCAL_USER)
    .addOption(
      new Option('--mode <mode>', 'by words, by meaning or by both; default: as the server does').choices([
        ...SEARCH_MODES,
      ]),
    )
    .option('--limit <n>', 'how many, 100 at most', readLimit, 20)
    .option('--archived', 'also in archived threads')
    .option('--json', 'as JSON Lines')
    .action((words: string[], options: QueryOptions) =>
      withThreadbase(cli, async (tb) => {
        const { user, mode, limit, archived, json } = options
        const page = await tb.search.messages(
          { userId: user },
          {
            q: words.join(' '),
            limit,
            includeArchived: archived ?? false,
            ...(mode === undefined ? {} : { mode }),
          },
        )
        if (page.degraded !== null) cli.stderr.write(`threadbase: ${page.degraded}\n`)
        cli.stdout.write(json === true ? toLines(page) : describe(page))
      }),
    )

  search
    .command('reindex')
    .description('take the words of all texts anew where SEARCH_LANGUAGE was another when they were stored')
    .option('--status', 'say only whether that is needed')
    .option('--json', 'print the result as JSON')
    .action((options: ReindexOptions) => reindex(cli, options))
  return search
}

async function reindex(cli: CliContext, { status, json }: ReindexOptions): Promise<void> {
  const { readWordState, reindexWords } = await import('../search/service.ts')
  const print = (text: string, value: object) =>
    void cli.stdout.write(`${json === true ? JSON.stringify(value) : text}\n`)
  await withThreadbase({ ...cli, open: () => openQuietly(cli) }, async ({ database }) => {
    if (status === true) {
      const state = await readWordState(database)
      const { language, others } = state
      const older =
        others.length === 0 ? 'all rows have its words' : `rows may have words of ${others.join(', ')}`
      return print(`${language}: ${older}`, state)
    }
    let progress: ReturnType<typeof createProgress> | undefined
    let report = { rows: 0, changed: 0 }
    const interrupted = await untilInterrupted(async (signal) => {
      report = await reindexWords(database, {
        signal,
        onProgress: (now, about) => {
          progress ??= createProgress(cli.stderr, 'reindex', about)
          progress.update(now.rows, `${formatCount(now.rows)} rows, ${formatCount(now.changed)} changed`)
        },
      })
    })
    progress?.stop()
    const rest = interrupted ? ' (interrupted: run it again to complete it)' : ''
    print(`${formatCount(report.rows)} rows, ${formatCount(report.changed)} changed${rest}`, {
      ...report,
      interrupted,
    })
    if (interrupted) cli.setExitCode(130)
  })
}

/** That rows have the words of another language is what the command is for. */
async function openQuietly(cli: CliContext) {
  const { openConfigured } = await import('../open-threadbase.ts')
  const { silentLog } = await import('../core/log.ts')
  return openConfigured(cli.config(), silentLog)
}

function readLimit(text: string): number {
  if (/^\d{1,3}$/.test(text) && Number(text) >= 1 && Number(text) <= 100) return Number(text)
  throw new InvalidArgumentError('It must be a number from 1 to 100.')
}

function toLines({ items, mode, method }: SearchPage): string {
  return items.map((hit) => `${JSON.stringify({ ...hit, mode, method })}\n`).join('')
}

function describe({ items, mode, method }: SearchPage): string {
  if (items.length === 0) return 'nothing found\n'
  const how = method === null ? mode : `${mode}, ${method}`
  return `${items.map(describeHit).join('\n')}\n${items.length} found (${how})\n`
}

function describeHit({ thread, message, analysis, score, snippet }: SearchHit): string {
  const place =
    message === null ? `analysis, version ${analysis?.version}` : `#${message.seq} ${message.role}`
  return `${thread.id}  ${place}  ${score.toFixed(4)}  ${(thread.title ?? '').replace(/\p{Cc}/gu, ' ')}\n  ${toPlain(snippet)}\n`
}

const CHARS: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', '#39': "'" }

/** A snippet as text, without what a terminal would take for a command. */
function toPlain(snippet: string): string {
  return snippet
    .replace(/<\/?mark>/g, '*')
    .replace(/&(amp|lt|gt|quot|#39);/g, (_, name: string) => CHARS[name] as string)
    .replace(/\p{Cc}/gu, ' ')
}
