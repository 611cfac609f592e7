import { type StoreOptions, ThreadbaseStore } from '../src/checkpoints/store/service.ts'
import type { TestDatabase } from './harness.ts'

export const keysOf = (items: { key: string }[]) => items.map(({ key }) => key).sort()

/** Stores of one user after the other, so that tests see nothing of each other. */
export function storesOn(opened: () => TestDatabase) {
  let users = 0
  return {
    /** Of the newest user. */
    userId: () => `user-${users}`,
    newStore: (options: StoreOptions = {}) =>
      new ThreadbaseStore(opened().database, { userId: `user-${++users}`, ...options }),
  }
}
