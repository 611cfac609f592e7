import { ThreadbaseError } from '../core/errors.ts'
import type { CliContext } from './context.ts'

/** Before work that only a database can do. @throws unsupported when conversations are kept in JSON files */
export function requireSql(cli: CliContext, command: string): void {
  if (cli.config().jsonDir === undefined) return
  throw new ThreadbaseError(
    'unsupported',
    `${command} needs SQL, and DATABASE_URL names JSON files: set it to a postgres:// URL, or leave it out for the embedded store`,
  )
}
