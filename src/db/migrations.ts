import { hash } from 'node:crypto'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ThreadbaseError } from '../core/errors.ts'

/** One step of the schema: a file `NNNN_name.sql` with an up and a down part. */
export type Migration = {
  /** The number that starts the file's name, four digits or more; the order of the steps. */
  revision: string
  name: string
  file: string
  up: string
  down: string
  /** SHA-256 of the file, in hex. */
  checksum: string
}

/** The migrations that came with this version. */
export const MIGRATIONS_DIR = fileURLToPath(new URL('../../migrations', import.meta.url))

const FILE = /^(\d{4,})_([a-z0-9_]+)\.sql$/
const UP = /^-- up\s*$/m
const DOWN = /^-- down\s*$/m

/** All migrations of a directory, oldest first. @throws invalid_input for a file without both parts, or a number used twice. */
export async function loadMigrations(directory = MIGRATIONS_DIR): Promise<Migration[]> {
  const files = (await readdir(directory)).filter((file) => file.endsWith('.sql')).sort()
  const migrations = await Promise.all(files.map((file) => loadMigration(directory, file)))
  for (const [i, { revision, file }] of migrations.entries()) {
    if (revision === migrations[i - 1]?.revision) {
      throw new ThreadbaseError(
        'invalid_input',
        `two migrations have the number ${revision}: ${file} is the second`,
      )
    }
  }
  return migrations
}

async function loadMigration(directory: string, file: string): Promise<Migration> {
  const [, revision, name] = FILE.exec(file) ?? []
  const text = await readFile(join(directory, file), 'utf8')
  const up = UP.exec(text)
  const down = DOWN.exec(text)
  if (revision === undefined || name === undefined || up === null || down === null || down.index < up.index) {
    throw new ThreadbaseError(
      'invalid_input',
      `${file} is not a migration: it needs a name like 0001_words.sql, a line "-- up" and after it a line "-- down"`,
    )
  }
  return {
    revision,
    name,
    file,
    up: text.slice(up.index + up[0].length, down.index).trim(),
    down: text.slice(down.index + down[0].length).trim(),
    checksum: hash('sha256', text, 'hex'),
  }
}

/** The migration with this revision, given with or without leading zeros, by its name, or as `head`. @throws not_found */
export function findMigration(migrations: Migration[], revision: string): Migration {
  const number = /^\d+$/.test(revision) ? Number(revision) : undefined
  const found =
    revision === 'head'
      ? migrations.at(-1)
      : migrations.find((m) => m.name === revision || Number(m.revision) === number)
  if (found !== undefined) return found
  const known = migrations.map((m) => m.revision).join(', ')
  throw new ThreadbaseError('not_found', `revision ${revision} is not known (there are: ${known})`, {
    revision,
  })
}

/** The SQL of a part with the schema's name filled in. */
export function inSchema(text: string, schema: string): string {
  return text.replaceAll(':"schema"', quoteIdentifier(schema))
}

export function quoteIdentifier(name: string): string {
  return /^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`
}

/** Writes an empty migration with the next number. Returns its path. */
export async function createMigration(message: string, directory = MIGRATIONS_DIR): Promise<string> {
  const name = message
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '_')
    .replace(/^_+|_+$/g, '')
  if (name === '')
    throw new ThreadbaseError('invalid_input', 'the message of a revision needs letters or digits')
  const last = (await loadMigrations(directory)).at(-1)?.revision ?? '0'
  const revision = String(Number(last) + 1).padStart(4, '0')
  const path = join(directory, `${revision}_${name}.sql`)
  await writeFile(
    path,
    `-- ${message}\n-- The runner writes the name of our schema where :"schema" stands.\n\n-- up\n\n-- down\n`,
    {
      flag: 'wx',
    },
  )
  return path
}
