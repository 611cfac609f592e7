/**
 * Runs work that a first Ctrl-C (or SIGTERM) asks to stop, through the signal that it is given; a second one ends the
 * process at once. @returns whether it was asked to stop
 */
export async function untilInterrupted(work: (signal: AbortSignal) => Promise<void>): Promise<boolean> {
  const controller = new AbortController()
  const stop = () => controller.abort()
  const names = ['SIGINT', 'SIGTERM'] as const
  for (const name of names) process.once(name, stop)
  try {
    await work(controller.signal)
  } finally {
    for (const name of names) process.off(name, stop)
  }
  return controller.signal.aborted
}

/** 25242 → `25,242` */
export function formatCount(count: number): string {
  return Math.round(count).toLocaleString('en-US')
}

/** 1234567 → `1.2 MB`, of 1,000,000 bytes. */
export function formatBytes(bytes: number): string {
  if (bytes < 10_000) return `${formatCount(bytes)} bytes`
  if (bytes < 1_000_000) return `${formatCount(bytes / 1_000)} KB`
  return bytes < 10_000_000_000 ? `${(bytes / 1_000_000).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`
}
