import type { Logger } from '../../core/log.ts'
import type { KeyUse } from './repo.ts'

const FLUSH_MS = 5_000
/** Keys that are written in one statement. */
const BATCH = 1_000

/**
 * Counts uses of keys in memory and writes them together every few seconds, so that a request costs no write. What a
 * process that is killed had counted last is lost.
 */
export function createUseCounter(write: (uses: KeyUse[]) => Promise<void>, log: Logger) {
  let counted = new Map<string, KeyUse>()
  let writing = Promise.resolve()
  const timer = setInterval(() => void flush(), FLUSH_MS).unref()

  const flush = (): Promise<void> => {
    writing = writing.then(writeAll)
    return writing
  }

  const writeAll = async () => {
    const uses = [...counted.values()]
    counted = new Map()
    for (let i = 0; i < uses.length; i += BATCH) {
      const batch = uses.slice(i, i + BATCH)
      try {
        await write(batch)
      } catch (error) {
        log.warn({ err: error }, 'uses of API keys could not be written; trying again later')
        for (const use of uses.slice(i)) add(use)
        return
      }
    }
  }

  const add = (use: KeyUse) => {
    const key = `${use.id} ${use.userId}`
    const known = counted.get(key)
    if (known === undefined) counted.set(key, use)
    else {
      known.uses += use.uses
      if (use.lastUsedAt > known.lastUsedAt) known.lastUsedAt = use.lastUsedAt
    }
  }

  return {
    count: (userId: string, id: string): void => add({ userId, id, uses: 1, lastUsedAt: new Date() }),
    flush,
    close: (): Promise<void> => {
      clearInterval(timer)
      return flush()
    },
  }
}
