/** Hashes are spread evenly: how far one is among all of them, from 0 to 1. */
export const placeOf = (sha256: string) => Number.parseInt(sha256.slice(0, 8), 16) / 2 ** 32

/** `work` on each item, so many at the same time. The first failure ends it, once those under way have ended. */
export async function forEach<T>(items: readonly T[], atOnce: number, work: (item: T) => Promise<void>) {
  let next = 0
  let failed = false
  const lane = async () => {
    while (next < items.length && !failed) {
      try {
        await work(items[next++] as T)
      } catch (error) {
        failed = true
        throw error
      }
    }
  }
  const lanes = await Promise.allSettled(Array.from({ length: Math.min(atOnce, items.length) }, lane))
  const failure = lanes.find((result) => result.status === 'rejected')
  if (failure !== undefined) throw failure.reason
}
