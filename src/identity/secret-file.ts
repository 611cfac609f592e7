import { randomBytes } from 'node:crypto'
import { link, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { ThreadbaseError } from '../core/errors.ts'

export type SecretForm = { create(): string; isSecret(text: string): boolean }

const RANDOM: SecretForm = {
  create: () => randomBytes(48).toString('base64url'),
  isSecret: (text) => text.length >= 32,
}

/**
 * The secret that a file holds; one is made, readable by its owner alone, when there is no file. Of processes that start
 * together all get the same.
 * @param form what a secret looks like. Default: 32 characters or more
 * @throws invalid_input for a file that holds none
 */
export async function readOrMakeSecret(file: string, form: SecretForm = RANDOM): Promise<string> {
  const secret = (await readSecret(file)) ?? (await make(file, form.create()))
  if (form.isSecret(secret)) return secret
  throw new ThreadbaseError('invalid_input', `${file} does not hold a secret: remove it to get a new one`, {
    file,
  })
}

/** What the file holds; undefined when there is none. It makes none. */
export async function readSecret(file: string): Promise<string | undefined> {
  try {
    return (await readFile(file, 'utf8')).trim()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

/** The file is there whole or not at all, and never replaced. */
async function make(file: string, secret: string): Promise<string> {
  const partial = `${file}.${process.pid}.${randomBytes(4).toString('hex')}`
  await mkdir(dirname(file), { recursive: true })
  await writeFile(partial, `${secret}\n`, { mode: 0o600, flush: true })
  try {
    await link(partial, file)
    return secret
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    return (await readSecret(file)) ?? ''
  } finally {
    await rm(partial)
  }
}
