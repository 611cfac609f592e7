import { Command, InvalidArgumentError } from 'commander'
import type { Actor } from '../audit/schema.ts'
import { isThreadbaseError } from '../core/errors.ts'
import { LOCAL_USER } from '../core/scope.ts'
import type { Threadbase } from '../threadbase.ts'
import type { TotalsQuery, Usage, UsagePatch, UsageTotal } from '../usage/schema.ts'
import type { CliContext } from './context.ts'
import { withThreadbase } from './with-threadbase.ts'

const OPERATOR: Actor = { userId: 'operator', via: 'cli' }
const USER = 'username, email or id; an id need not have an account'

const NO_LIMIT = -1

type SetOptions = { tier?: string; daily?: Limit; monthly?: Limit }
/** In an object: commander takes null for an option without a value. */
type Limit = { limit: number | null }
type Json = { json?: boolean }

/** `threadbase usage …`: how much users ask, and may. */
export function usageCommand(cli: CliContext): Command {
  const print = (line: string) => void cli.stdout.write(`${line}\n`)
  const usage = new Command('usage').description('show and set how much users may ask, and what it costs')

  usage
    .command('show')
    .description('print how much was asked, of a user or of all who ever asked')
    .argument('[user]', USER)
    .option('--json', 'as JSON Lines')
    .action((name: string | undefined, { json }: Json) =>
      withThreadbase(cli, async (tb) => {
        const write = (one: Usage) => print(json === true ? JSON.stringify(one) : describe(one))
        if (name !== undefined) return write(await tb.usage.read({ userId: await idOf(tb, name) }))
        for await (const { userId } of tb.usage.records()) write(await tb.usage.read({ userId }))
      }),
    )

  usage
    .command('set')
    .description('give a user a tier, or limits of their own; what is not given stays')
    .argument('<user>', USER)
    .option('--tier <name>', 'one of USAGE_TIERS')
    .option('--daily <n>', "questions a day: a number, unlimited, or default (the tier's)", readLimit)
    .option('--monthly <n>', 'the same for a month', readLimit)
    .action((name: string, { tier, daily, monthly }: SetOptions) =>
      withThreadbase(cli, async (tb) => {
        const patch: UsagePatch = { tier, dailyLimit: daily?.limit, monthlyLimit: monthly?.limit }
        for (const key of ['tier', 'dailyLimit', 'monthlyLimit'] as const)
          if (patch[key] === undefined) delete patch[key]
        print(describe(await tb.usage.set(OPERATOR, await idOf(tb, name), patch)))
      }),
    )

  usage
    .command('totals')
    .description('print tokens and costs of a user by day and model, newest day first')
    .argument('[user]', USER, LOCAL_USER)
    .option('--since <day>', 'first day (UTC), such as 2026-01-31; default: 29 days before --until')
    .option('--until <day>', 'last day; default: today')
    .option('--json', 'as JSON Lines')
    .action((name: string, { json, ...query }: TotalsQuery & Json) =>
      withThreadbase(cli, async (tb) => {
        for (const total of await tb.usage.totals({ userId: await idOf(tb, name) }, query))
          print(json === true ? JSON.stringify(total) : describeTotal(total))
      }),
    )
  return usage
}

/** The id of an account, else the text itself: users of an external provider have none before they come. */
async function idOf(tb: Threadbase, name: string): Promise<string> {
  // accounts are rows: beside JSON files there are none
  if (tb.database.engine === 'none') return name
  try {
    return (await tb.identity.users.find(name)).id
  } catch (error) {
    if (isThreadbaseError(error, 'not_found')) return name
    throw error
  }
}

function readLimit(text: string): Limit {
  if (text === 'unlimited') return { limit: NO_LIMIT }
  if (text === 'default') return { limit: null }
  if (/^\d{1,10}$/.test(text)) return { limit: Number(text) }
  throw new InvalidArgumentError('It must be a number, unlimited, or default.')
}

function describe({
  userId,
  tier,
  dailyUsed,
  dailyLimit,
  monthlyUsed,
  monthlyLimit,
  totalQueries,
}: Usage): string {
  const of = (used: number, limit: number | null) => `${used} of ${limit ?? 'unlimited'}`
  return `${userId}  ${tier}  today ${of(dailyUsed, dailyLimit)}  this month ${of(monthlyUsed, monthlyLimit)}  ever ${totalQueries}`
}

function describeTotal({ day, model, calls, inputTokens, outputTokens, cost }: UsageTotal): string {
  const price = cost === null ? '-' : `$${cost}`
  return `${day}  ${model ?? '-'}  calls ${calls}  tokens in ${inputTokens}  out ${outputTokens}  cost ${price}`
}
