/** Wakes one sleeper. */
export type Bell = {
  ring(): void
  /** Also ends {@link Bell.settle}. */
  hurry(): void
  /** Sleeps until it rings, or has rung since the last time. False when the time is over or the signal aborts. */
  wait(ms: number, signal: AbortSignal): Promise<boolean>
  /** Sleeps though it rings, unless somebody is in a hurry. */
  settle(ms: number, signal: AbortSignal): Promise<void>
}

export function createBell(): Bell {
  let rung = false
  let hurried = false
  let wake: (() => void) | undefined

  /** Until `enough` is so, which is looked at after each wake-up. */
  async function sleep(ms: number, signal: AbortSignal, enough: () => boolean): Promise<void> {
    if (enough() || signal.aborted) return
    await new Promise<void>((resolve) => {
      const end = () => {
        clearTimeout(timer)
        signal.removeEventListener('abort', end)
        wake = undefined
        resolve()
      }
      const timer = setTimeout(end, ms)
      // who sleeps does not keep the process
      timer.unref()
      signal.addEventListener('abort', end, { once: true })
      wake = () => {
        if (enough()) end()
      }
    })
  }

  return {
    ring() {
      rung = true
      wake?.()
    },
    hurry() {
      rung = true
      hurried = true
      wake?.()
    },
    async wait(ms, signal) {
      await sleep(ms, signal, () => rung)
      const was = rung
      rung = false
      return was
    },
    async settle(ms, signal) {
      await sleep(ms, signal, () => hurried)
      hurried = false
    },
  }
}
