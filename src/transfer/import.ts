import type { Scope } from '../core/scope.ts'
import { createDryRun } from './dry-run.ts'
import { importBatch } from './import-batch.ts'
import { openInput, untilStopped } from './input.ts'
import type { Slices } from './plan.ts'
import { readConversations } from './read.ts'
import { type Conversation, type ImportOptions, type ImportReport, KEPT_REFUSALS } from './schema.ts'

/** What became of one conversation; `messages` were stored. */
export type Outcome = { n: number; messages: number } & (
  | { status: 'imported' | 'known' | 'extended' }
  | { status: 'refused'; reason: string }
)

export type RunBatch = (conversations: Conversation[]) => Promise<Outcome[]>

/**
 * Imports what the bytes hold: reads one conversation at a time, stores many in a statement, and has at most `lanes`
 * batches under way, so that memory stays bounded whatever the size of the file.
 * @throws unsupported or invalid_input when it is no file of this kind; unavailable when the database goes away
 */
export async function runImport(
  slices: Slices,
  lanes: number,
  scope: Scope,
  source: AsyncIterable<Uint8Array>,
  options: ImportOptions = {},
): Promise<ImportReport> {
  const log = createReport(options)
  const bytes = untilStopped(source, options.signal, (count) => {
    log.report.bytes += count
  })
  const input = await openInput(bytes, options.format).catch(async (error: unknown) => {
    await bytes.return(undefined)
    throw error
  })
  log.report.format = input.format
  const inTurn = createTurns()
  const run: RunBatch =
    options.dryRun === true
      ? createDryRun(slices, scope)
      : (batch) => importBatch(slices, scope, batch, inTurn)
  const batches = createBatches(run, lanes, log.add)
  try {
    for await (const item of readConversations(input)) {
      // what comes now may have been cut off by the stop
      if (options.signal?.aborted === true) break
      if ('refusal' in item) log.add({ ...item.refusal, messages: 0, status: 'refused' })
      else await batches.add(item.conversation, item.chars)
    }
  } finally {
    await batches.finish()
  }
  log.report.refusals.sort((a, b) => a.n - b.n)
  return log.report
}

/** Makes a function that begins each work when the one before has ended. */
function createTurns(): <T>(work: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve()
  return (work) => {
    const now = last.then(work)
    last = now.catch(() => {})
    return now
  }
}

type Log = {
  report: ImportReport
  add(outcome: Outcome): void
}

function createReport({ dryRun = false, onProgress, onRefused }: ImportOptions): Log {
  const report: ImportReport = {
    format: 'jsonl',
    dryRun,
    imported: 0,
    known: 0,
    extended: 0,
    refused: 0,
    messages: 0,
    bytes: 0,
    refusals: [],
  }
  return {
    report,
    add(outcome) {
      report[outcome.status]++
      report.messages += outcome.messages
      if (outcome.status === 'refused') {
        const { n, reason } = outcome
        if (report.refusals.length < KEPT_REFUSALS) report.refusals.push({ n, reason })
        onRefused?.({ n, reason })
      }
      onProgress?.(report)
    },
  }
}

// as many as one statement takes; a larger conversation is a batch of its own
const MAX_MESSAGES = 1_000
const MAX_CHARS = 4_000_000
const MAX_CONVERSATIONS = 500

/** Gathers conversations into batches and keeps at most `lanes` of them under way. */
function createBatches(run: RunBatch, lanes: number, onOutcome: (outcome: Outcome) => void) {
  let batch: Conversation[] = []
  let messages = 0
  let chars = 0
  let failure: { error: unknown } | undefined
  const underWay = new Set<Promise<void>>()
  // threads of the batch and of those under way: a second line for one must find the first one stored
  const busy = new Set<string>()

  const start = async () => {
    if (batch.length === 0) return
    while (underWay.size >= lanes) await Promise.race(underWay)
    const ready = batch
    batch = []
    messages = 0
    chars = 0
    const work = run(ready)
      .then((outcomes) => outcomes.forEach(onOutcome))
      .catch((error: unknown) => {
        failure ??= { error }
      })
      .finally(() => {
        for (const { threadId } of ready) busy.delete(threadId)
        underWay.delete(work)
      })
    underWay.add(work)
  }
  const drain = async () => {
    await start()
    await Promise.all(underWay)
    if (failure !== undefined) throw failure.error
  }

  return {
    async add(conversation: Conversation, size: number): Promise<void> {
      if (failure !== undefined) throw failure.error
      const count = conversation.messages.length
      const fits =
        messages + count <= MAX_MESSAGES && chars + size <= MAX_CHARS && batch.length < MAX_CONVERSATIONS
      if (!fits) await start()
      if (busy.has(conversation.threadId)) await drain()
      batch.push(conversation)
      busy.add(conversation.threadId)
      messages += count
      chars += size
    },
    finish: drain,
  }
}
