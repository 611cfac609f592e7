import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

const OFTEN_BYTES = 16 << 20

type Collector = (options: { type: 'minor' }) => void
let collect: Collector | undefined
let passed = 0

/**
 * Says that so many bytes went by in buffers that nobody holds any more. V8 looks for such only when 64 MB of them have
 * piled up; after every 16 MiB, of all streams together, this has it look among the young ones, which takes less than a
 * millisecond. So a stream costs the memory of a few chunks, however long it is.
 */
export function passedBy(bytes: number): void {
  passed += bytes
  if (passed < OFTEN_BYTES) return
  passed = 0
  collect ??= findCollector()
  collect({ type: 'minor' })
}

/** The function that the flag `--expose-gc` gives to contexts which are made after it. */
function findCollector(): Collector {
  setFlagsFromString('--expose-gc')
  try {
    return runInNewContext('gc') as Collector
  } catch {
    return () => {}
  } finally {
    setFlagsFromString('--no-expose-gc')
  }
}
