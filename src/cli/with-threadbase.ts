import type { Threadbase } from '../threadbase.ts'
import type { CliContext } from './context.ts'

/** Opens the store that is there, for work that makes none, and closes it. */
export async function withThreadbase(
  cli: CliContext,
  work: (tb: Threadbase) => Promise<void>,
): Promise<void> {
  cli.requireStore()
  await using tb = await cli.open()
  await work(tb)
}
