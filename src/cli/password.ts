import { text } from 'node:stream/consumers'
import askHidden from '@inquirer/password'
import { ThreadbaseError } from '../core/errors.ts'
import type { CliContext } from './context.ts'

/**
 * A password that somebody types twice without seeing it, or, when standard input is no terminal, its first line: what is
 * given as an argument everybody on the machine can see.
 * @throws invalid_input when there is none, or the two differ
 */
export async function readNewPassword({ stdin, stderr }: CliContext, user: string): Promise<string> {
  if (!stdin.isTTY) return requirePassword((await text(stdin)).split(/\r?\n/)[0] ?? '')
  // standard output is for results
  const context = { input: stdin, output: stderr, clearPromptOnDone: true }
  const ask = (message: string) => askHidden({ message, mask: false }, context)
  const password = requirePassword(await ask(`Password for ${user}:`))
  if (password !== (await ask('The same again:')))
    throw new ThreadbaseError('invalid_input', 'the two passwords differ')
  return password
}

function requirePassword(password: string): string {
  if (password !== '') return password
  throw new ThreadbaseError('invalid_input', 'there is no password: type one, or write it to standard input')
}
