import type { CliContext } from './context.ts'
import { untilInterrupted } from './interrupt.ts'
import { createProgress, type Progress } from './progress.ts'

/** Work with a bar, from the first that it tells on. @returns whether it was asked to stop */
export async function withProgress(
  cli: CliContext,
  label: string,
  work: (signal: AbortSignal, tell: (share: number, text: string) => void) => Promise<void>,
): Promise<boolean> {
  let progress: Progress | undefined
  try {
    return await untilInterrupted((signal) =>
      work(signal, (share, text) => {
        progress ??= createProgress(cli.stderr, label, 1_000)
        progress.update(Math.round(share * 1_000), text)
      }),
    )
  } finally {
    progress?.stop()
  }
}
