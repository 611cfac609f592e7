import { Command, InvalidArgumentError } from 'commander'
import type { AnalysisContent, AnalysisItem, ChainLink, Session, StoredVersion } from '../analyses/schema.ts'
import { snakeKeys } from '../core/case.ts'
import { LOCAL_USER } from '../core/scope.ts'
import type { Threadbase } from '../threadbase.ts'
import type { CliContext } from './context.ts'
import { withThreadbase } from './with-threadbase.ts'

type List = { user: string; archived?: boolean; json?: boolean }

/** `threadbase sessions …`: threads of kind chain_analysis. */
export function sessionsCommand(cli: CliContext): Command {
  const sessions = new Command('sessions').description('see sessions of chain analysis')
  sessions
    .command('list')
    .description('list the sessions of a user, newest start first')
    .option('--user <id>', 'whose sessions', LOCAL_USER)
    .option('--archived', 'archived ones, too')
    .option('--json', 'print a line of JSON for each')
    .action(({ user, archived, json }: List) =>
      withThreadbase(cli, async (tb) => {
        for await (const session of sessionsOf(tb, user, archived === true))
          cli.stdout.write(`${json ? JSON.stringify(snakeKeys(session)) : describe(session)}\n`)
      }),
    )
  return sessions
}

async function* sessionsOf(tb: Threadbase, userId: string, includeArchived: boolean) {
  let cursor: string | undefined
  do {
    const page = await tb.sessions.list({ userId }, { limit: 100, includeArchived, cursor })
    yield* page.items
    cursor = page.nextCursor
  } while (cursor !== undefined)
}

function describe({ id, startedAt, endedAt, analysisVersion, title }: Session): string {
  const ended = endedAt === null ? 'open' : `ended ${endedAt.toISOString()}`
  const analysis = analysisVersion === null ? 'no analysis' : `analysis ${analysisVersion}`
  return [
    startedAt.toISOString(),
    id,
    ended,
    analysis,
    ...(title === null ? [] : [JSON.stringify(title)]),
  ].join('  ')
}

type Show = { user: string; json?: boolean }

/** `threadbase analysis …`: what sessions came to. */
export function analysisCommand(cli: CliContext): Command {
  const analysis = new Command('analysis').description('see what a session came to')
  analysis
    .command('show')
    .description('print the analysis of a session')
    .argument('<session>', 'id of the session')
    // no option: --version is the program's own
    .argument('[version]', 'number of a version; default: the one in force', readVersion)
    .option('--user <id>', 'whose session', LOCAL_USER)
    .option('--json', 'as JSON')
    .action((session: string, version: number | undefined, { user, json }: Show) =>
      withThreadbase(cli, async (tb) => {
        const { analyses } = tb
        const scope = { userId: user }
        const n = version ?? (await analyses.getAnalysis(scope, session)).version
        const stored = await analyses.getVersion(scope, session, n)
        cli.stdout.write(json ? `${JSON.stringify(toJson(stored))}\n` : print(stored))
      }),
    )
  return analysis
}

function readVersion(text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('It must be the number of a version, from 1.')
}

const toJson = ({ analysis, ...facts }: StoredVersion) => ({
  ...snakeKeys(facts),
  analysis: snakeKeys(analysis),
})

const HEADINGS: [name: keyof AnalysisContent, heading: string][] = [
  ['summary', 'Summary'],
  ['promptingEvent', 'Prompting event'],
  ['vulnerabilities', 'Vulnerabilities'],
  ['chainLinks', 'Chain'],
  ['problemBehavior', 'Problem behavior'],
  ['consequences', 'Consequences'],
  ['solutions', 'Solutions'],
]

/** For people; what is empty is left out. */
function print({ sessionId, version, writtenAt, replacedAt, analysis }: StoredVersion): string {
  const until = replacedAt === null ? '' : `, replaced ${replacedAt.toISOString()}`
  const parts = HEADINGS.flatMap(([name, heading]) => {
    const value = analysis[name]
    const lines = Array.isArray(value) ? value.map(lineOf) : value === null ? [] : [printed(value)]
    return lines.length === 0 ? [] : [`\n${heading}\n${lines.map((line) => `  ${line}\n`).join('')}`]
  })
  return `session ${sessionId}, version ${version}, written ${writtenAt.toISOString()}${until}\n${parts.join('')}`
}

function lineOf(item: AnalysisItem | ChainLink): string {
  const { text, kind, ...others } = typeof item === 'string' ? { text: item } : (item as Fields)
  const facts = Object.entries(others).map(([name, value]) => `${name}: ${wordOf(value)}`)
  const head = kind === undefined ? text : `${wordOf(kind)}: ${text}`
  return printed(`- ${head}${facts.length === 0 ? '' : ` (${facts.join(', ')})`}`)
}

type Fields = { text: string; [field: string]: unknown }

const wordOf = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value))

/** Without what a terminal would obey; further lines stand below the first one. */
const printed = (text: string) =>
  text.replace(/\r?\n/g, '\n    ').replace(/[\p{Cc}]/gu, (char) => (char === '\n' ? char : '\ufffd'))
