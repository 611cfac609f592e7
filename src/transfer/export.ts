import type { Scope } from '../core/scope.ts'
import type { Message } from '../messages/schema.ts'
import type { Thread } from '../threads/schema.ts'
import { createMarkdownWriter } from './markdown.ts'
import type { Slices } from './plan.ts'
import { type AgeKey, listThreadKeys } from './repo.ts'
import type { ExportFormat, ExportOptions } from './schema.ts'
import { createMessageWriter, lineOf } from './to-openai.ts'

/** Turns one thread into text, piece by piece. */
export type ThreadWriter = {
  begin(): string
  /** `index` from 0. */
  message(message: Message, index: number): string
  end(): string
}

const WRITERS: Record<ExportFormat, (thread: Thread, isFirst: boolean) => ThreadWriter> = {
  jsonl: createLineWriter,
  markdown: createMarkdownWriter,
}

// what is handed on at once: small pieces cost a write each
const PIECE_CHARS = 65_536

/**
 * The user's threads as text, in pieces, oldest first; of a thread with branches the path to its newest message. Reads
 * a page of messages at a time, when the reader asks for more.
 * @throws not_found without such a thread
 */
export async function* exportText(
  slices: Slices,
  scope: Scope,
  { threadId, format = 'jsonl', onProgress }: ExportOptions = {},
): AsyncGenerator<string> {
  const counts = { threads: 0, messages: 0 }
  let piece = ''
  for await (const thread of threadsOf(slices, scope, threadId)) {
    const writer = WRITERS[format](thread, counts.threads === 0)
    piece += writer.begin()
    let index = 0
    for await (const page of slices.messages.readPath(scope, thread.id, thread.lastSeq)) {
      for (const message of page) {
        piece += writer.message(message, index++)
        if (piece.length < PIECE_CHARS) continue
        yield piece
        piece = ''
      }
    }
    piece += writer.end()
    counts.threads++
    counts.messages += index
    onProgress?.(counts)
  }
  if (piece !== '') yield piece
}

async function* threadsOf(
  { forUser, threads }: Slices,
  scope: Scope,
  threadId: string | undefined,
): AsyncGenerator<Thread> {
  if (threadId !== undefined) {
    yield await threads.getThread(scope, threadId)
    return
  }
  for await (const ids of idsByAge({ forUser }, scope)) {
    const found = await threads.findMany(scope, ids)
    for (const id of ids) {
      const thread = found.get(id)
      // deleted since its id was read
      if (thread !== undefined) yield thread
    }
  }
}

// no index has this order: each page of keys sorts them all, so pages are large, and keys are small
const KEY_PAGE = 10_000
const GROUP = 50

async function* idsByAge({ forUser }: Pick<Slices, 'forUser'>, { userId }: Scope): AsyncGenerator<string[]> {
  let after: AgeKey | undefined
  for (;;) {
    const keys = await listThreadKeys(forUser(userId), userId, KEY_PAGE, after)
    for (let i = 0; i < keys.length; i += GROUP) yield keys.slice(i, i + GROUP).map(({ id }) => id)
    after = keys.at(-1)
    if (keys.length < KEY_PAGE) return
  }
}

/** One JSON line a thread, `messages` last. */
function createLineWriter(thread: Thread): ThreadWriter {
  const write = createMessageWriter(thread)
  return {
    begin() {
      const fields = JSON.stringify(lineOf(thread)).slice(0, -1)
      return `${fields}${fields === '{' ? '' : ','}"messages":[`
    },
    message: (message, index) => `${index === 0 ? '' : ','}${JSON.stringify(write(message))}`,
    end: () => ']}\n',
  }
}
