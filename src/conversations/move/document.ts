import { isThreadbaseError } from '../../core/errors.ts'
import { digestJson } from '../../core/json.ts'
import { type PreparedMessage, prepareMessage } from '../../messages/service.ts'
import type { Thread } from '../../threads/schema.ts'
import { fromThread, toMessage, toThread } from '../mapping.ts'
import type { Conversation, CouncilMessage } from '../schema.ts'
import { type Fields, type ReadFile, Refusal, requireConversation } from './read.ts'
import type { FileMark, Place } from './schema.ts'
import { ownTime, timeOfFile } from './times.ts'

/** A conversation of a file as it is going to be stored. */
export type FileConversation = {
  file: string
  userId: string
  id: string
  threadId: string
  title: string
  meta: ThreadMeta
  createdAt: Date
  /** Whether the document says so. */
  dated: boolean
  messages: PreparedMessage[]
  /** When each message says it was written. */
  own: (Date | undefined)[]
  mtime: Date
  /** Characters of its messages. */
  chars: number
}

export type ThreadMeta = { council?: object; council_file: FileMark }

/**
 * What is stored of a document. It is known by the name of its file, which is what a council looks up; an id in it that
 * differs is kept beside, for the way back.
 * @throws Refusal
 */
export function toFileConversation(
  read: ReadFile,
  place: { file: string; place: Place; userId: string; id: string },
): FileConversation {
  const { userId, id } = place
  const document = requireConversation(read.value)
  try {
    const thread = toThread({ ...document, id } as unknown as Conversation)
    const messages = document.messages.map((message) =>
      prepareMessage(userId, thread.id, toMessage(message as CouncilMessage)),
    )
    return {
      file: place.file,
      userId,
      id,
      threadId: thread.id,
      title: thread.title,
      meta: { ...thread.meta, council_file: toMark(document, place.place, id) },
      createdAt: thread.createdAt ?? timeOfFile(read),
      dated: thread.createdAt !== undefined,
      messages,
      own: document.messages.map(ownTime),
      mtime: read.mtime,
      chars: messages.reduce((sum, { row }) => sum + row.content.length, 0),
    }
  } catch (error) {
    if (isThreadbaseError(error)) throw new Refusal(error.message)
    throw error
  }
}

function toMark(document: Fields, place: Place, id: string): FileMark {
  const mark: FileMark = { place, head: digestHead(document) }
  if (document.id !== id) mark.id = document.id === undefined ? null : { is: document.id }
  return mark
}

const digestHead = ({ messages: _, ...head }: Fields) => digestJson(head)

export function fileMarkOf({ meta }: Pick<Thread, 'meta'>): Partial<FileMark> {
  const { council_file: mark } = meta
  return typeof mark === 'object' && mark !== null ? (mark as Partial<FileMark>) : {}
}

type HeadRow = Pick<Thread, 'id' | 'title' | 'meta' | 'createdAt'>

/** What a file says of a conversation beside its messages. */
export function toHead(thread: HeadRow): Fields {
  const { id, ...head } = fromThread(thread)
  const mark = fileMarkOf(thread)
  if (mark.id === null) return head
  return { id: mark.id === undefined ? id : mark.id.is, ...head }
}

export const digestThreadHead = (thread: HeadRow) => digestHead(toHead(thread))

/** The id by which the conversation of a thread is known. */
export const idOfThread = (thread: HeadRow) => fromThread(thread).id
