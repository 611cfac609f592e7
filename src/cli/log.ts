import { type Logger, pino } from 'pino'
import { redactFacts } from '../core/redact.ts'

/**
 * JSON lines on standard error; standard output is for results. Secrets, message contents and what a database's error
 * tells of rows are left out of every line, whoever logs it.
 */
export function createLog(level: string, stream: NodeJS.WritableStream): Logger {
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      // errors are described with the rest of the facts
      serializers: { err: (facts) => facts },
      formatters: { log: redactFacts, bindings: redactFacts },
    },
    stream,
  )
}
