import { ThreadbaseError } from '../core/errors.ts'

/**
 * The cache port: text by key for a limited time, and counters. What is in it may be gone at any time.
 * Keys and values are Unicode text: a lone surrogate becomes U+FFFD. Every function but `stats` and `close` throws
 * `unavailable` when Redis does not answer (whether the call took effect is then not known) and after `close`, and
 * `invalid_input` for a time that is no positive number.
 */
export type Cache = {
  readonly engine: 'memory' | 'redis'
  /** What is used, for people; never a credential. */
  readonly description: string
  /** Whether other processes see it. */
  readonly shared: boolean
  get(key: string): Promise<string | undefined>
  /** False, and nothing changes, when `ifAbsent` and there is one. */
  set(key: string, value: string, options: SetOptions): Promise<boolean>
  delete(...keys: string[]): Promise<void>
  /**
   * Counts in a fixed window that begins with its first count; atomic. `resetMs` is the time until the window ends.
   * `by` is a whole number, default 1; 0 reads the count, a negative one takes back, and neither begins a window.
   * @throws invalid_input also when `set` put a text there that is no count
   */
  increment(key: string, options: IncrementOptions): Promise<WindowCount>
  /** Since it was opened: `get`s that found something, that found nothing, and calls of any kind that failed. */
  stats(): CacheStats
  /** Again: no change. */
  close(): Promise<void>
}

export type SetOptions = { ttlMs: number; ifAbsent?: boolean }
export type IncrementOptions = { windowMs: number; by?: number }
export type WindowCount = { count: number; resetMs: number }
export type CacheStats = { hits: number; misses: number; errors: number }

/** Whole milliseconds, at least one. @throws invalid_input */
export function checkDuration(name: 'ttlMs' | 'windowMs', value: number): number {
  if (value > 0 && value <= Number.MAX_SAFE_INTEGER) return Math.ceil(value)
  throw new ThreadbaseError('invalid_input', `${name} must be a positive number of milliseconds`)
}

/** @throws invalid_input */
export function checkStep(by = 1): number {
  if (Number.isSafeInteger(by)) return by
  throw new ThreadbaseError('invalid_input', 'by must be a whole number')
}

export function notACount(): ThreadbaseError {
  return new ThreadbaseError('invalid_input', 'the key holds a text that is no count')
}
