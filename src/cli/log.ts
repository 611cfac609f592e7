import { type Logger, pino } from 'pino'
import { describeError, redactFacts } from '../core/redact.ts'

/**
 * JSON lines on standard error; standard output is for results. Secrets, message contents and what a database's error
 * tells of rows are left out of every line, whoever logs it.
 */
export function createLog(level: string, stream: NodeJS.WritableStream): Logger {
  const log = pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      // errors are described with the rest of the facts
      serializers: { err: (facts) => facts },
      formatters: { log: redactFacts },
      hooks: {
        logMethod(args, method) {
          const [error, text] = args as unknown[]
          // pino would make the error's message the line's
          if (error instanceof Error)
            method.apply(this, [
              { err: error },
              typeof text === 'string' ? text : describeError(error).message,
            ])
          else method.apply(this, args)
        },
      },
    },
    stream,
  )
  // a formatter for bindings would not reach the loggers of requests, which are children of children
  log.child = new Proxy(log.child, {
    apply: (child, self, [bindings, options]) =>
      Reflect.apply(child, self, [redactFacts(bindings as object), options]),
  })
  return log
}
