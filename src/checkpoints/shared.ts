import type { SerializerProtocol } from '@langchain/langgraph-checkpoint'
import { type Codec, createCodecs, type EncryptionOptions } from './codec.ts'
import { createKnown, type Known } from './known.ts'
import { createMemo, type Memo } from './memo.ts'

/** What the checkpointers of one Threadbase remember together. All of it can be lost without harm. */
export type Shared = {
  codecOf(userId: string): Codec
  knownOf(userId: string, threadId: string): Known
  memoOf(codec: Codec, serde: SerializerProtocol, stock: boolean): Memo
  /**
   * How many children a checkpoint had when it was read, for `reject`. What this process stored itself does not count:
   * another run of it is another writer.
   */
  children: Children
  /** All that is known of a user. */
  forget(userId: string): void
}

/** A checkpoint, or where a namespace begins. */
export type Parent = { userId: string; threadId: string; ns: string; id: string | undefined }

export type Children = { find(parent: Parent): number; keep(parent: Parent, count: number): void }

const MAX_PARENTS = 10_000
// LangGraph's own serializer has no state: all of its instances write one form
const STOCK = {}

/** @throws invalid_input for a bad encryption key */
export function createShared(encryption: EncryptionOptions | undefined): Shared {
  const known = createKnown()
  // addresses are of a codec, what they name is of a serializer
  const memos = new WeakMap<Codec, WeakMap<object, Memo>>()
  const memoOf: Shared['memoOf'] = (codec, serde, stock) => {
    const bySerde = memos.get(codec) ?? new WeakMap<object, Memo>()
    memos.set(codec, bySerde)
    const form = stock ? STOCK : serde
    const memo = bySerde.get(form) ?? createMemo()
    bySerde.set(form, memo)
    return memo
  }
  return {
    codecOf: createCodecs(encryption),
    knownOf: (userId, threadId) => known(`${userId}\0${threadId}`),
    memoOf,
    children: createChildren(),
    forget: (userId) => known.forgetAll(`${userId}\0`),
  }
}

function createChildren(): Children {
  const counts = new Map<string, number>()
  const keyOf = ({ userId, threadId, ns, id }: Parent) => JSON.stringify([userId, threadId, ns, id ?? null])
  return {
    find: (parent) => counts.get(keyOf(parent)) ?? 0,
    keep: (parent, count) => {
      const key = keyOf(parent)
      counts.delete(key)
      counts.set(key, count)
      if (counts.size > MAX_PARENTS) counts.delete(counts.keys().next().value as string)
    },
  }
}
