import { type Logger, pino } from 'pino'

/** JSON lines on standard error; standard output is for results. */
export function createLog(level: string, stream: NodeJS.WritableStream): Logger {
  return pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, stream)
}
