import { Command } from 'commander'
import { snakeKeys } from '../core/case.ts'
import { ThreadbaseError } from '../core/errors.ts'
import type { BackfillReport, EmbeddingStatus } from '../search/embed/service.ts'
import type { BuildOptions, BuildReport } from '../search/vectors/service.ts'
import type { Threadbase } from '../threadbase.ts'
import type { CliContext } from './context.ts'
import { formatCount } from './interrupt.ts'
import { createLog } from './log.ts'
import { requireSql } from './requires-sql.ts'
import { readSeconds } from './times.ts'
import { withProgress } from './with-progress.ts'
import { withThreadbase } from './with-threadbase.ts'

const BACKFILL_HELP = `
Servers do the same in the background, and may go on meanwhile: each message is done once. It ends when all
is done that waited at its start. A model that does not answer is asked again for a while; then it fails, with what is
done so far stored.`

const INDEX_HELP = `
Appends and searches go on, and an index that is there is used until the new one is ready. Searches of users with few
messages need none. Interrupted, it leaves things as they were.

  hnsw     finds most, and grows with what is appended (default: VECTOR_INDEX)
  ivfflat  is made faster and smaller; make it when the messages are there, and again when they are many times as many

HNSW is made many times as fast when all of it fits into --memory: about 2 GB for a million messages.`

/** `threadbase embeddings …`: what search by meaning stands on. */
export function embeddingsCommand(cli: CliContext): Command {
  const embeddings = new Command('embeddings').description(
    'what search by meaning stands on: the vectors of messages',
  )
  embeddings
    .command('status')
    .description('print what there is, and how many messages and results wait for an embedding')
    .option('--json', 'as JSON')
    .action(({ json }: Json) => run(cli, 'embeddings status', (tb) => printStatus(cli, tb, json === true)))
  embeddings
    .command('backfill')
    .description('embed all that waits, here and now')
    .option('--give-up <time>', 'how long the model may not answer before it fails', '1m')
    .option('--json', 'print the result as JSON')
    .addHelpText('after', BACKFILL_HELP)
    .action((options: Backfill) => {
      const giveUpAfterS = readSeconds('--give-up', options.giveUp)
      return run(cli, 'embeddings backfill', (tb) => backfill(cli, tb, { ...options, giveUpAfterS }))
    })
  embeddings
    .command('index')
    .description('make the index of embeddings on PostgreSQL, anew if there is one')
    .option('--type <type>', 'hnsw or ivfflat; comes before VECTOR_INDEX')
    .option('--lists <n>', 'of ivfflat; comes before VECTOR_LISTS')
    .option('--memory <MB>', 'memory that the server may use for it (maintenance_work_mem)')
    .option('--json', 'print the result as JSON')
    .addHelpText('after', INDEX_HELP)
    .action((options: Index) => {
      const given = readIndex(cli, options)
      return run(cli, 'embeddings index', (tb) => buildIndex(cli, tb, given, options.json === true))
    })
  return embeddings
}

type Json = { json?: boolean }
type Backfill = Json & { giveUp?: string }
type Index = Json & { type?: string; lists?: string; memory?: string }

async function run(cli: CliContext, name: string, work: (tb: Threadbase) => Promise<void>): Promise<void> {
  requireSql(cli, name)
  await withThreadbase(cli, work)
}

/** As a start of the server does. */
async function prepare(cli: CliContext, { database }: Threadbase, change: boolean): Promise<void> {
  const { vectors, logLevel } = cli.config()
  const { prepareVectors } = await import('../search/vectors/service.ts')
  await prepareVectors(database, { index: vectors.index, change }, createLog(logLevel, cli.stderr))
}

async function printStatus(cli: CliContext, tb: Threadbase, json: boolean): Promise<void> {
  const status = await tb.embeddings.status()
  cli.stdout.write(json ? toJson(status) : describe(status))
}

function toJson({ state: _, space, models, ...counts }: EmbeddingStatus): string {
  const byModel = models.map((model) => snakeKeys(model))
  return `${JSON.stringify({ ...snakeKeys(counts), space: snakeKeys(space), models: byModel })}\n`
}

function describe({ model, description, space, models, ...counts }: EmbeddingStatus): string {
  const { waiting, done, refused, empty, ofOtherModels } = counts
  const others = models.filter((one) => one.model !== model)
  const lines = [
    `model      ${model === null ? 'none: embeddings are off (EMBEDDING_MODEL)' : `${model}: ${description}`}`,
    `extension  ${space.available ? `vector ${space.version}` : 'not there, or its columns are not: `threadbase db upgrade` says what is missing'}`,
    ...(space.available ? [`index      ${describeIndex(space)}`] : []),
    `waiting    ${formatCount(waiting)}`,
    ...(model === null ? [] : [`done       ${formatCount(done)}`]),
    ...(refused > 0 ? [`refused    ${formatCount(refused)} by the model`] : []),
    ...(empty > 0 ? [`empty      ${formatCount(empty)} have nothing to embed`] : []),
    ...(ofOtherModels > 0 ? [`others     ${formatCount(ofOtherModels)} are done by another model`] : []),
    ...others.map((one) => `             ${one.model}: ${formatCount(one.done + one.refused + one.empty)}`),
  ]
  return `${lines.join('\n')}\n`
}

function describeIndex({ index, probes, iterates }: EmbeddingStatus['space'] & { available: true }): string {
  if (index === 'none') return 'none: vectors are compared one by one'
  const searched = index === 'ivfflat' ? `, ${formatCount(probes)} lists are searched` : ''
  return `${index}${searched}${iterates ? '' : '; not asked: pgvector before 0.8 misses what is of one user among many'}`
}

async function backfill(
  cli: CliContext,
  tb: Threadbase,
  { json = false, giveUpAfterS }: Json & { giveUpAfterS: number | undefined },
): Promise<void> {
  // where embeddings are off nothing is made for them
  if (tb.embeddings.model !== undefined) await prepare(cli, tb, cli.config().migrateAtStart)
  let report: BackfillReport | undefined
  const started = performance.now()
  const interrupted = await withProgress(cli, 'backfill', async (signal, tell) => {
    report = await tb.embeddings.backfill({
      ...{ signal, giveUpAfterS },
      onProgress: (done, of) =>
        tell(of === 0 ? 1 : done / of, `${formatCount(done)} of ${formatCount(of)} messages and results`),
    })
  })
  if (report === undefined) return
  const seconds = (performance.now() - started) / 1_000
  const rate = formatCount(report.done / Math.max(seconds, 0.001))
  const text = `${formatCount(report.done)} done in ${seconds.toFixed(1)} s, ${rate} a second`
  const note = interrupted ? 'interrupted: what is done stays; run it again to go on\n' : ''
  cli.stdout.write(
    json ? `${JSON.stringify({ done: report.done, seconds, interrupted })}\n` : `${note}${text}\n`,
  )
  if (interrupted) cli.setExitCode(130)
}

type Given = Pick<BuildOptions, 'type' | 'lists' | 'memoryMb'>

/** @throws invalid_input */
function readIndex(cli: CliContext, { type, lists, memory }: Index): Given {
  const { vectors } = cli.config()
  if (type !== undefined && type !== 'hnsw' && type !== 'ivfflat') throw bad('--type must be hnsw or ivfflat')
  return {
    type: type ?? vectors.index,
    lists: readCount('--lists', lists, 32_768) ?? vectors.lists,
    memoryMb: readCount('--memory', memory, 1_000_000),
  }
}

async function buildIndex(cli: CliContext, tb: Threadbase, given: Given, json: boolean): Promise<void> {
  await prepare(cli, tb, true)
  let report: BuildReport | undefined
  await withProgress(cli, 'index', async (signal, tell) => {
    report = await tb.embeddings.buildIndex({
      ...given,
      signal,
      onProgress: (phase, share) => tell(share, phase),
    })
  })
  if (report === undefined) return
  const { index, lists } = report
  const kind = `${index}${lists === null ? '' : ` of ${formatCount(lists)} lists`}`
  const text =
    index === null
      ? 'interrupted: the index is as it was'
      : `${kind} on ${formatCount(report.vectors)} embeddings`
  cli.stdout.write(`${json ? JSON.stringify(report) : text}\n`)
  if (index === null) cli.setExitCode(130)
}

function readCount(option: string, text: string | undefined, most: number): number | undefined {
  if (text === undefined) return undefined
  const count = Number(text)
  if (!/^\d+$/.test(text) || count < 1 || count > most)
    throw bad(`${option} must be a number from 1 to ${most}`)
  return count
}

const bad = (message: string) => new ThreadbaseError('invalid_input', message)
