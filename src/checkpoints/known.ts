import type { Address } from './address.ts'

/** What one thread is believed to have stored. Never a proof: another process may have removed it. */
export type Known = {
  has(address: Address): boolean
  add(addresses: Iterable<Address>): void
  forget(): void
}

/** For a caller that relies on nothing. */
export const NOTHING_KNOWN: Known = { has: () => false, add: () => {}, forget: () => {} }

const MAX_THREADS = 1_000
const MAX_ADDRESSES_A_THREAD = 50_000

/** Remembers, for the threads used last, what need not be sent again. */
export function createKnown(): (thread: string) => Known {
  const threads = new Map<string, Set<Address>>()
  const of = (thread: string): Set<Address> => {
    const addresses = threads.get(thread) ?? new Set()
    // the order of a map is that of insertion: what was used goes to the end
    threads.delete(thread)
    threads.set(thread, addresses)
    if (threads.size > MAX_THREADS) threads.delete(threads.keys().next().value as string)
    return addresses
  }
  return (thread) => ({
    has: (address) => threads.get(thread)?.has(address) ?? false,
    add: (addresses) => {
      const known = of(thread)
      if (known.size > MAX_ADDRESSES_A_THREAD) known.clear()
      for (const address of addresses) known.add(address)
    },
    forget: () => void threads.delete(thread),
  })
}
