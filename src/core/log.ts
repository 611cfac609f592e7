/** The part of a pino logger that Threadbase uses: facts first, then a sentence. */
export type Logger = {
  debug(facts: object, message: string): void
  info(facts: object, message: string): void
  warn(facts: object, message: string): void
  error(facts: object, message: string): void
}

/** What the library uses when the application gives no logger. */
export const silentLog: Logger = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }
