import { createReadStream, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sql } from 'kysely'
import { openThreadbase } from '../src/index.ts'
import type { ThreadbaseOptions } from '../src/open-threadbase.ts'
import type { Threadbase } from '../src/threadbase.ts'
import { alternate, perSecond, type Row, root } from './harness.ts'

const scope = { userId: 'local' }

/** The file of the Schema-Guided Dialogues. */
export function dialogues(): string {
  const directory = process.env.THREADBASE_TEST_DATA ?? join(root, '../shared/data')
  const file = join(directory, 'sgd-chats.jsonl.gz')
  if (!existsSync(file)) throw new Error(`${file} is not there: set THREADBASE_TEST_DATA to its directory`)
  return file
}

/** Importing the Schema-Guided Dialogues (25,242 messages) into fresh stores of both engines; opening them not counted. */
export async function importRows(postgresUrl: string): Promise<Row[]> {
  const file = dialogues()
  const parent = mkdtempSync(join(tmpdir(), 'threadbase-import-'))
  let round = 0
  try {
    const rates = await alternate(3, {
      postgres: () =>
        importRate(file, { databaseUrl: postgresUrl, databaseSchema: `import_${round++}` }, async (tb) => {
          await sql`drop schema ${sql.id(tb.database.schema)} cascade`.execute(tb.database.db)
        }),
      embedded: () => importRate(file, { dataDir: join(parent, `round${round}`) }),
    })
    return [
      {
        work: 'import the dialogues, PostgreSQL',
        figure: `${perSecond(rates.postgres)} messages`,
        target: '≥ 15,000/s',
        met: rates.postgres >= 15_000,
      },
      {
        work: 'import the dialogues, embedded',
        figure: `${perSecond(rates.embedded)} messages`,
        target: '≥ 3,000/s',
        met: rates.embedded >= 3_000,
      },
    ]
  } finally {
    rmSync(parent, { recursive: true, force: true })
  }
}

async function importRate(
  file: string,
  options: ThreadbaseOptions,
  after = async (_: Threadbase) => {},
): Promise<number> {
  await using tb = await openThreadbase({ env: {}, embeddings: false, ...options })
  const started = performance.now()
  const report = await tb.transfer.import(scope, createReadStream(file))
  const seconds = (performance.now() - started) / 1_000
  if (report.refused > 0 || report.messages === 0)
    throw new Error('the import did not take every conversation')
  await after(tb)
  return report.messages / seconds
}
