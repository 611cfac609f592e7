import { Command } from 'commander'
import { ThreadbaseError } from '../core/errors.ts'
import type { Threadbase } from '../threadbase.ts'
import type { CliContext } from './context.ts'
import { formatCount, untilInterrupted } from './interrupt.ts'
import { createProgress } from './progress.ts'
import { readSeconds } from './times.ts'
import { withThreadbase } from './with-threadbase.ts'

const THREADS_AT_ONCE = 20

/** The commands of `threadbase checkpoints` for threads that are here: to see, to thin out, to remove. */
export function threadCommands(cli: CliContext): Command[] {
  return [listCommand(cli), pruneCommand(cli), deleteCommand(cli)]
}

function listCommand(cli: CliContext): Command {
  return new Command('list')
    .description('list the threads that have checkpoints, each with its newest checkpoint')
    .option('--user <id>', 'whose threads', 'local')
    .option('--json', 'print a line of JSON for each')
    .action(({ user, json }: { user: string; json?: boolean }) =>
      withThreadbase(cli, async (tb) => {
        for await (const { threadId, checkpointId, updatedAt } of threadsOf(tb, user)) {
          const line = json
            ? JSON.stringify({ thread_id: threadId, checkpoint_id: checkpointId, updated_at: updatedAt })
            : `${updatedAt.toISOString()}  ${checkpointId}  ${threadId}`
          cli.stdout.write(`${line}\n`)
        }
      }),
    )
}

type Prune = { user: string; allUsers?: boolean; thread?: string[]; olderThan?: string; keepLatest: string }

function pruneCommand(cli: CliContext): Command {
  return new Command('prune')
    .description('remove old checkpoints, and what only they used')
    .option('--user <id>', 'whose threads', 'local')
    .option('--all-users', 'the threads of all users')
    .option('--thread <id...>', 'only these threads')
    .option(
      '--older-than <time>',
      'only checkpoints older than this, such as 12h, 30d or 8w; default: of any age',
    )
    .option(
      '--keep-latest <n>',
      'how many of the newest of every namespace stay in any case; 0 may empty a thread',
      '1',
    )
    .action((options: Prune) => withThreadbase(cli, (tb) => prune(cli, tb, options)))
}

async function prune(cli: CliContext, tb: Threadbase, options: Prune): Promise<void> {
  const { user, allUsers, thread, olderThan } = options
  const { listStateUsers } = await import('../checkpoints/service.ts')
  const limits = {
    keepLatest: readCount(options.keepLatest),
    olderThanS: readSeconds('--older-than', olderThan),
  }
  const removed = { threads: 0, checkpoints: 0, writes: 0 }
  const progress = createProgress(cli.stderr, 'prune')
  const pruneThreads = async (userId: string, threadIds: string[]) => {
    const { checkpoints, writes } = await tb.checkpointer.prune({ userId, threadIds, ...limits })
    removed.threads += threadIds.length
    removed.checkpoints += checkpoints
    removed.writes += writes
    progress.update(
      0,
      `${formatCount(removed.checkpoints)} checkpoints of ${formatCount(removed.threads)} threads`,
    )
  }
  const interrupted = await untilInterrupted(async (signal) => {
    for await (const userId of allUsers ? listStateUsers(tb.database) : [user]) {
      let batch: string[] = []
      for await (const threadId of thread ?? idsOf(threadsOf(tb, userId))) {
        if (signal.aborted) return
        batch.push(threadId)
        if (batch.length < THREADS_AT_ONCE) continue
        await pruneThreads(userId, batch)
        batch = []
      }
      if (batch.length > 0) await pruneThreads(userId, batch)
    }
  }).finally(() => progress.stop())
  const { threads, checkpoints, writes } = removed
  cli.stdout.write(
    `${interrupted ? 'interrupted: ' : ''}removed ${formatCount(checkpoints)} checkpoints and ${formatCount(writes)} writes; looked at ${formatCount(threads)} threads\n`,
  )
  if (interrupted) cli.setExitCode(130)
}

function deleteCommand(cli: CliContext): Command {
  return new Command('delete')
    .description('remove all checkpoints of a thread')
    .argument('<thread>', 'id of the thread')
    .option('--user <id>', 'whose thread', 'local')
    .action((thread: string, { user }: { user: string }) =>
      withThreadbase(cli, async (tb) => {
        if (!(await hasCheckpoints(tb, user, thread)))
          throw new ThreadbaseError('not_found', `user ${user} has no checkpoints of thread ${thread}`)
        await tb.checkpointer.deleteThread(thread, { userId: user })
        cli.stdout.write(`deleted ${thread}\n`)
      }),
    )
}

async function* threadsOf(tb: Threadbase, userId: string) {
  let cursor: string | undefined
  do {
    const page = await tb.checkpointer.listThreads({ userId, limit: 500, cursor })
    yield* page.items
    cursor = page.nextCursor
  } while (cursor !== undefined)
}

async function hasCheckpoints(tb: Threadbase, user_id: string, thread_id: string): Promise<boolean> {
  for await (const _ of tb.checkpointer.list({ configurable: { user_id, thread_id } }, { limit: 1 }))
    return true
  return false
}

async function* idsOf(threads: AsyncIterable<{ threadId: string }>) {
  for await (const { threadId } of threads) yield threadId
}

function readCount(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text)
  throw new ThreadbaseError('invalid_input', '--keep-latest must be a whole number')
}
