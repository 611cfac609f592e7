import { mkdir, realpath } from 'node:fs/promises'
import { resolve } from 'node:path'
import { isThreadbaseError } from '../../core/errors.ts'
import { newId } from '../../core/ids.ts'
import type { Logger } from '../../core/log.ts'
import type { Scope } from '../../core/scope.ts'
import { answering } from '../../files/system.ts'
import {
  answerMessage,
  conversationExists,
  conversationNotFound,
  questionOf,
  requireConversation,
  requireLimit,
  requireTitle,
} from '../checks.ts'
import { requireConversationId } from '../ids.ts'
import { writeTime } from '../mapping.ts'
import { createMatcher, DEFAULT_HITS, MAX_HITS } from '../matches.ts'
import { renderConversation } from '../render.ts'
import { type Conversation, type ConversationHit, type CouncilMessage, NEW_TITLE } from '../schema.ts'
import type { ConversationStore, ListOptions } from '../store.ts'
import { type ConversationFiles, createConversationFiles, type Found } from './files.ts'
import { createLists, cut } from './lists.ts'
import { type PlaceKind, placesOf, requireUserDirectory } from './places.ts'
import { searchFiles } from './search.ts'
import { createTurns } from './turns.ts'

export type JsonConversationsOptions = {
  /** The data directory of a council: `conversations/ID.json`, `conversations/USER/ID.json` or `USER/ID.json` in it. */
  dir: string
  log: Logger
  /** Whose the files in `conversations` are that name no user. Default: `local` */
  localUser?: string
}

const LOCAL_USER = 'local'

/**
 * Council conversations in plain JSON files, in the directories of existing councils, which read and write them at the
 * same time. Ours are written as a whole, under a lock that all our processes share.
 */
export async function openJsonConversations({
  dir,
  log,
  localUser = LOCAL_USER,
}: JsonConversationsOptions): Promise<ConversationStore> {
  await answering(() => mkdir(dir, { recursive: true, mode: 0o700 }))
  // links on the way to it are the operator's; below it none is followed
  const root = await answering(() => realpath(resolve(dir)))
  const files = createConversationFiles(root, localUser)
  const lists = createLists(root, localUser, log)
  const writes = createWrites(root, files, lists)
  const find = async (scope: Scope, id: string) => {
    const userId = requireUserDirectory(scope)
    return (await answering(() => files.find(userId, requireConversationId(id))))?.read.value
  }
  const get = async (scope: Scope, id: string) => {
    const found = await find(scope, id)
    if (found === undefined) throw conversationNotFound(id)
    return found
  }
  return {
    kind: 'json',
    description: `JSON files in ${dir}`,
    ...writes,
    findConversation: find,
    getConversation: get,
    async listConversations(scope, options: ListOptions = {}) {
      const userId = requireUserDirectory(scope)
      if (options.limit !== undefined) requireLimit(options.limit, Number.MAX_SAFE_INTEGER)
      const all = await answering(() => lists.listAll(userId))
      return cut(all, options).map(({ summary }) => ({ ...summary }))
    },
    async search(scope, q, { limit = DEFAULT_HITS } = {}): Promise<ConversationHit[]> {
      const userId = requireUserDirectory(scope)
      const match = createMatcher(q)
      requireLimit(limit, MAX_HITS)
      return answering(async () => searchFiles(files, userId, await lists.listAll(userId), match, limit))
    },
    export: async (scope, id, format) => renderConversation(await get(scope, id), format),
    async close() {},
  }
}

function createWrites(root: string, files: ConversationFiles, lists: ReturnType<typeof createLists>) {
  const withLock = <T>(scope: Scope, id: string, work: (found: Found, userId: string) => Promise<T>) => {
    const userId = requireUserDirectory(scope)
    requireConversationId(id)
    return answering(() => files.withConversation(userId, id, (found) => work(found, userId)))
  }
  const appendTo = (found: Found, userId: string, id: string, message: CouncilMessage) =>
    files.change(found, userId, id, (now) => ({ ...now, messages: [...now.messages, message] }))
  const append = (scope: Scope, id: string, message: CouncilMessage) =>
    withLock(scope, id, async (found, userId) => {
      await appendTo(found, userId, id, message)
      return message
    })

  /** In the first of these places where nobody has a file of this name. @throws conflict */
  async function addNew(userId: string, kinds: PlaceKind[], document: Conversation): Promise<Conversation> {
    for (const kind of kinds) {
      const place = placesOf(root, userId).find((one) => one.kind === kind)
      // what would be another user's there is not put there
      const isOurs = kind !== 'flat' || files.ownerOf(document) === userId
      if (place !== undefined && isOurs && (await files.add(place, document))) return document
    }
    throw conversationExists(document.id)
  }

  const unique = (kinds: PlaceKind[]) => [...new Set(kinds)]

  return {
    async createConversation(scope: Scope, givenId?: string): Promise<Conversation> {
      const userId = requireUserDirectory(scope)
      const id = givenId === undefined ? newId() : requireConversationId(givenId)
      return answering(async () => {
        if (await files.exists(userId, id)) throw conversationExists(id)
        const document = { id, created_at: writeTime(new Date()), title: NEW_TITLE, messages: [] }
        const home = await lists.homeOf(userId)
        const isLocal = files.ownerOf(document) === userId
        // among those of others it must say whose it is
        const owned = home === 'flat' && !isLocal ? { ...document, user_id: userId } : document
        return addNew(userId, unique([home, 'nested', 'top']), owned)
      })
    },

    async saveConversation(scope: Scope, conversation: Conversation): Promise<void> {
      const userId = requireUserDirectory(scope)
      const document = requireConversation(conversation)
      await answering(async () => {
        for (let tries = 1; !(await files.replace(userId, document)); tries++) {
          const kinds = unique([await lists.homeOf(userId), 'nested', 'top'])
          try {
            return void (await addNew(userId, kinds, document))
          } catch (error) {
            // another one saved it first: then it is there to be replaced
            if (tries === 3 || !isThreadbaseError(error, 'conflict')) throw error
          }
        }
      })
    },

    addUserMessage: async (scope: Scope, id: string, content: string) =>
      append(scope, id, questionOf(content)),

    addAssistantMessage: async (scope: Scope, id: string, answer: Parameters<typeof answerMessage>[0]) =>
      append(scope, id, answerMessage(answer)),

    async updateConversationTitle(scope: Scope, id: string, title: string): Promise<void> {
      const wanted = requireTitle(title)
      await withLock(scope, id, async (found, userId) => {
        await files.change(found, userId, id, (now) => ({ ...now, title: wanted }))
      })
    },

    async deleteConversation(scope: Scope, id: string): Promise<boolean> {
      const userId = requireUserDirectory(scope)
      requireConversationId(id)
      return answering(() => files.removeAll(userId, id))
    },

    turns: createTurns((scope, id, work) =>
      withLock(scope, id, (found, userId) =>
        work({
          spot: found.spot,
          conversation: found.read.value,
          append: async (message) => (await appendTo(found, userId, id, message)).value,
        }),
      ),
    ),
  }
}
