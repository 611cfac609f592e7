import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { findViolations, readImports } from './architecture-rules.ts'

const SRC = join(import.meta.dirname, '../src')

async function readSources(): Promise<Map<string, string>> {
  const names = await readdir(SRC, { recursive: true })
  const paths = names.filter((name) => name.endsWith('.ts') && !name.endsWith('.test.ts')).sort()
  return new Map(
    await Promise.all(paths.map(async (path) => [path, await readFile(join(SRC, path), 'utf8')] as const)),
  )
}

describe('the architecture', () => {
  let files: Map<string, string>
  beforeAll(async () => {
    files = await readSources()
  })

  test('is kept by every file', () => {
    expect(findViolations(files)).toEqual([])
  })

  test('was looked at: the files and their imports were found', () => {
    for (const path of [
      'index.ts',
      'core/json.ts',
      'db/postgres.ts',
      'threads/service.ts',
      'messages/repo.ts',
    ]) {
      expect([...files.keys()]).toContain(path)
    }
    const imports = [...files].flatMap(([file, text]) => readImports(file, text))
    expect(imports.length).toBeGreaterThan(100)
    expect(imports.filter(({ target }) => target === 'pg').length).toBeGreaterThan(1)
    expect(imports.some(({ file, target }) => file === 'threads/service.ts' && target === './repo.ts')).toBe(
      true,
    )
  })

  const broken: [what: string, file: string, text: string, problem: RegExp][] = [
    ['core imports a port', 'core/x.ts', "import { x } from '../db/database.ts'", /upwards: db\/database/],
    ['a port imports a slice', 'db/x.ts', "import { x } from '../threads/service.ts'", /upwards/],
    ['a slice imports http', 'threads/x.ts', "export { x } from '../http/app.ts'", /upwards/],
    ['http imports an entry point', 'http/x.ts', "import '../cli/main.ts'", /upwards/],
    ['types count, too', 'core/x.ts', "import type { X } from '../threads/schema.ts'", /upwards/],
    [
      'imports at run time count, too',
      'core/x.ts',
      "const x = await import('../threads/service.ts')",
      /upwards/,
    ],
    [
      'imports over several lines',
      'core/x.ts',
      "import {\n  a,\n  b,\n} from '../db/types.ts'",
      /x\.ts:4 imports upwards/,
    ],
    [
      'a command loads services that others do not need',
      'cli/x.ts',
      "import { x } from '../threads/service.ts'",
      /at the start of every command/,
    ],
    [
      'a slice reaches into another',
      'messages/x.ts',
      "import * as repo from '../threads/repo.ts'",
      /another slice/,
    ],
    [
      "http uses a slice's repository",
      'http/x.ts',
      "import * as repo from '../threads/repo.ts'",
      /another slice/,
    ],
    [
      'a slice uses the routes of another',
      'messages/x.ts',
      "import { r } from '../threads/routes.ts'",
      /another slice/,
    ],
    [
      'traces are known outside of their adapter',
      'http/x.ts',
      "import { trace } from '@opentelemetry/api'",
      /driver @opentelemetry\/api/,
    ],
    [
      'metrics are made in a slice',
      'threads/x.ts',
      "import { Counter } from 'prom-client'",
      /driver prom-client/,
    ],
    [
      'models are asked elsewhere than in the council',
      'flows/x.ts',
      "const { default: OpenAI } = await import('openai')",
      /driver openai/,
    ],
    ['one port imports another', 'cache/x.ts', "import { x } from '../db/types.ts'", /sideways/],
    ['something outside of src', 'core/x.ts', "import { x } from '../../test/harness.ts'", /outside of src/],
    ['a file that is not there', 'core/x.ts', "import { x } from './gone.ts'", /does not exist/],
    ['a room that nobody knows', 'misc/x.ts', "import { x } from '../core/json.ts'", /no known room/],
    ['a driver in a slice', 'threads/x.ts', "import pg from 'pg'", /driver pg/],
    [
      'a driver in a port beside its adapter',
      'db/migrate.ts',
      "import { PGlite } from '@electric-sql/pglite'",
      /driver/,
    ],
    [
      'S3 is loaded by who may not need it',
      'threadbase.ts',
      "import { openS3 } from './blobs/s3.ts'",
      /before it is known to be needed/,
    ],
    [
      'the AWS SDK outside of its adapter',
      'blobs/blobs.ts',
      "import '@aws-sdk/client-s3'",
      /driver @aws-sdk/,
    ],
    ['Redis outside of its adapter', 'core/x.ts', "import { Redis } from 'ioredis'", /driver ioredis/],
    ['Redis in a port', 'cache/x.ts', "import { Redis } from 'ioredis'", /driver ioredis/],
    ['the bus imports the cache', 'bus/x.ts', "import { x } from '../cache/cache.ts'", /sideways/],
    ['what ports share imports a port', 'redis/x.ts', "import { x } from '../bus/bus.ts'", /upwards/],
    [
      'the HTTP framework in a service',
      'threads/service.ts',
      "import type { FastifyRequest } from 'fastify'",
      /framework/,
    ],
    ['a plugin of it in the command line', 'cli/x.ts', "import swagger from '@fastify/swagger'", /framework/],
    ['the query builder in a service', 'threads/x.ts', "import { sql } from 'kysely'", /query builder/],
    ['SQL in a service', 'threads/service.ts', 'await sql`select 1`.execute(db)', /holds SQL/],
    [
      'typed SQL in a route',
      'threads/routes.ts',
      'await sql<{ n: number }>`select 1`.execute(db)',
      /holds SQL/,
    ],
    ['the query builder without an import', 'http/x.ts', "db.selectFrom('threads').selectAll()", /holds SQL/],
    ['the environment in the configuration', 'config.ts', 'const port = process.env.PORT', /process\.env/],
    ['the environment in a command', 'cli/run.ts', 'const { PORT } = process.env', /process\.env/],
  ]
  test.each(broken)('is broken when: %s', (_, file, text, problem) => {
    const violations = findViolations(new Map([...files, [file, text]]))
    expect(violations.filter((violation) => violation.startsWith(file)).join('\n')).toMatch(problem)
  })

  test.each([
    ['a slice uses the service of another', 'messages/x.ts', "import { x } from '../threads/service.ts'"],
    ['types of the query builder', 'threads/x.ts', "import type { Kysely } from 'kysely'"],
    [
      'types of the query builder, one by one',
      'threads/x.ts',
      "import { type Kysely, type Transaction } from 'kysely'",
    ],
    [
      'words in a comment',
      'threads/x.ts',
      "// import pg from 'pg'; process.env; sql`x`\n/* import x from 'ioredis' */",
    ],
    ['a port uses what it shares of Redis', 'bus/x.ts', "import { x } from '../redis/url.ts'"],
    ['SQL in a repository', 'threads/repo.ts', "import { sql } from 'kysely'\nsql`select 1`"],
    ['the framework in routes', 'threads/routes.ts', "import type { FastifyInstance } from 'fastify'"],
  ])('is kept when: %s', (_, file, text) => {
    const violations = findViolations(new Map([...files, [file, text]]))
    expect(violations.filter((violation) => violation.startsWith(file))).toEqual([])
  })
})
