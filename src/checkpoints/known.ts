import type { Address } from './address.ts'
import type { Tree } from './tree.ts'

/** A list as it was stored. */
export type StoredList = {
  tree: Tree
  /** How many of its first elements are each a value of the tree: behind them small ones may share one. */
  plain: number
}

/** What one thread is believed to have stored. Never a proof: another process may have removed it. */
export type Known = {
  has(address: Address): boolean
  add(addresses: Iterable<Address>): void
  /** The lists of a namespace. */
  listsOf(ns: string): KnownLists
  forget(): void
}

export type KnownLists = {
  has(address: Address): boolean
  /** What a channel held last: its next value likely begins with the same elements. */
  find(channel: string): StoredList | undefined
  keep(lists: ReadonlyMap<string, StoredList>): void
}

const NO_LISTS: KnownLists = { has: () => false, find: () => undefined, keep: () => {} }

/** For a caller that relies on nothing. */
export const NOTHING_KNOWN: Known = {
  has: () => false,
  add: () => {},
  listsOf: () => NO_LISTS,
  forget: () => {},
}

const MAX_THREADS = 1_000
const MAX_ADDRESSES_A_THREAD = 50_000
// of all threads together: some 30 MB
const MAX_ADDRESSES = 300_000
const MAX_LISTS_A_THREAD = 100

type Thread = { addresses: Set<Address>; lists: Map<string, StoredList> }

/** By thread; `forgetAll` is of those whose name begins so. */
export type KnownThreads = ((thread: string) => Known) & { forgetAll(prefix: string): void }

/** Remembers, for the threads used last, what need not be sent again. */
export function createKnown(maxAddresses = MAX_ADDRESSES): KnownThreads {
  const threads = new Map<string, Thread>()
  let total = 0
  const forget = (name: string) => {
    total -= threads.get(name)?.addresses.size ?? 0
    threads.delete(name)
  }
  const of = (name: string): Thread => {
    const thread = threads.get(name) ?? { addresses: new Set(), lists: new Map() }
    // the order of a map is that of insertion: what was used goes to the end
    threads.delete(name)
    threads.set(name, thread)
    return thread
  }
  const forgetOldest = () => {
    while (threads.size > MAX_THREADS || (total > maxAddresses && threads.size > 1))
      forget(threads.keys().next().value as string)
  }
  const forgetAll = (prefix: string) => {
    for (const name of threads.keys()) if (name.startsWith(prefix)) forget(name)
  }
  const ofThread = (name: string): Known => {
    const has = (address: Address) => threads.get(name)?.addresses.has(address) ?? false
    return {
      has,
      add: (addresses) => {
        const known = of(name).addresses
        total -= known.size
        if (known.size > MAX_ADDRESSES_A_THREAD) known.clear()
        for (const address of addresses) known.add(address)
        total += known.size
        forgetOldest()
      },
      listsOf: (ns) => ({
        has,
        find: (channel) => threads.get(name)?.lists.get(`${ns}\0${channel}`),
        keep: (kept) => {
          const { lists } = of(name)
          if (lists.size > MAX_LISTS_A_THREAD) lists.clear()
          for (const [channel, list] of kept) lists.set(`${ns}\0${channel}`, list)
          forgetOldest()
        },
      }),
      forget: () => forget(name),
    }
  }
  return Object.assign(ofThread, { forgetAll })
}
