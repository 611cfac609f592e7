import { Command } from 'commander'
import type { Config } from '../config.ts'
import type { Logger } from '../core/log.ts'
import type { Database } from '../db/database.ts'
import { findDrift } from '../db/drift.ts'
import { appliedRevisions, downgrade, type MigrationStep, stamp, upgrade } from '../db/migrate.ts'
import { createMigration, findMigration, loadMigrations, type Migration } from '../db/migrations.ts'
import { prepareRls } from '../db/rls.ts'
import { openDatabase } from '../open-database.ts'
import type { CliContext } from './context.ts'
import { createLog } from './log.ts'

/** `threadbase db …`: the commands that an Alembic user expects. */
export function dbCommand(cli: CliContext): Command {
  const print = (line: string) => void cli.stdout.write(`${line}\n`)
  type Work = (database: Database, migrations: Migration[], config: Config, log: Logger) => Promise<void>
  const onDatabase = async (work: Work) => {
    const config = cli.config()
    const migrations = await loadMigrations()
    const log = createLog(config.logLevel, cli.stderr)
    const database = await openDatabase(config, log)
    try {
      await work(database, migrations, config, log)
    } finally {
      await database.close()
    }
  }
  const onExisting: typeof onDatabase = async (work) => {
    cli.requireStore()
    await onDatabase(work)
  }
  const printStep = ({ direction, revision, name, ms }: MigrationStep) =>
    print(`${direction === 'up' ? 'upgrade  ' : 'downgrade'} ${revision} ${name} (${ms} ms)`)

  /** What opening makes beside the migrations. */
  const prepare = async (database: Database) => {
    const { prepareSearch } = await import('../search/service.ts')
    const { search, logLevel } = cli.config()
    await prepareSearch(database, { ...search, change: true }, createLog(logLevel, cli.stderr))
  }

  const db = new Command('db').description('look at and change the schema of the database')

  db.command('current')
    .description('print the revision the database is at')
    .action(() =>
      onExisting(async (database, migrations) => {
        const current = (await appliedRevisions(database)).at(-1)
        print(current === undefined ? 'none' : describe(current, migrations))
      }),
    )

  db.command('history')
    .description('print all revisions, newest first')
    .option('-v, --verbose', 'with file, checksum and when each was applied to the database')
    .action(async ({ verbose }: { verbose?: boolean }) => {
      if (verbose !== true) return printHistory(await loadMigrations(), print)
      await onExisting(async (database, migrations) =>
        printDetails(migrations, await appliedRevisions(database), print),
      )
    })

  db.command('heads')
    .description('print the newest revision, and those that the database lacks')
    .action(() =>
      onExisting(async (database, migrations) => {
        const head = migrations.at(-1)
        if (head !== undefined) print(describe(head, migrations))
        const applied = new Set((await appliedRevisions(database)).map(({ revision }) => revision))
        for (const { revision, name } of migrations)
          if (!applied.has(revision)) print(`pending: ${revision} ${name}`)
      }),
    )

  db.command('upgrade')
    .description('apply migrations up to a revision')
    .argument('[revision]', '`head`, a revision, or +n steps', 'head')
    .action((target: string) =>
      onDatabase(async (database, migrations, config, log) => {
        const steps = await upgrade(database, migrations, target, printStep)
        if ((await appliedRevisions(database)).length === migrations.length) await prepare(database)
        await prepareRls(database, { grant: true })
        if (config.embeddings.kind !== 'none' && (await isAtHead(database, migrations))) {
          const { prepareVectors } = await import('../search/vectors/service.ts')
          await prepareVectors(database, { index: config.vectors.index, change: true }, log)
        }
        if (steps.length === 0) print('nothing to do')
      }),
    )

  db.command('downgrade')
    .description('take migrations back; their tables and rows are lost')
    .argument('<revision>', '-n steps, the revision to go back to, or `base` for all')
    // -1 looks like an option
    .allowUnknownOption()
    .action((target: string, _options: object, command: Command) => {
      if (/^-(?!\d+$)/.test(target)) command.error(`error: unknown option '${target}'`)
      return onDatabase(async (database, migrations) => {
        const steps = await downgrade(database, migrations, target, printStep)
        if (steps.length === 0) print('nothing to do')
      })
    })

  db.command('show')
    .description('print the SQL of a revision')
    .argument('<revision>', '`head` or a revision')
    .action(async (revision: string) => {
      const migrations = await loadMigrations()
      const migration = findMigration(migrations, revision)
      print(`-- ${migration.file}\n\n-- up\n\n${migration.up}\n\n-- down\n\n${migration.down}`)
    })

  db.command('stamp')
    .description('write down that the database is at a revision, without running anything')
    .argument('<revision>', '`head`, a revision, or `base` for none')
    .action((target: string) =>
      onDatabase(async (database, migrations) => {
        await stamp(database, migrations, target)
        const current = (await appliedRevisions(database)).at(-1)
        print(`stamped ${current === undefined ? 'none' : describe(current, migrations)}`)
      }),
    )

  db.command('revision')
    .description('write an empty migration with the next number')
    .requiredOption('-m, --message <text>', 'what it does, in a few words')
    .option('--dir <directory>', 'where to write it', 'migrations')
    .action(async ({ message, dir }: { message: string; dir: string }) =>
      print(await createMigration(message, dir)),
    )

  db.command('check')
    .description('compare the database with what the migrations make; exit code 1 if they differ')
    .action(() =>
      onExisting(async (database, migrations) => {
        const differences = await findDrift(database, migrations)
        for (const { object, expected, actual } of differences) {
          print(`${object}\n  expected: ${expected ?? 'nothing'}\n  found:    ${actual ?? 'nothing'}`)
        }
        if (differences.length === 0) print('no differences')
        else cli.setExitCode(1)
      }),
    )

  return db
}

/** Only then are there all columns that embeddings need beside them. */
async function isAtHead(database: Database, migrations: Migration[]): Promise<boolean> {
  return (await appliedRevisions(database)).at(-1)?.revision === migrations.at(-1)?.revision
}

function describe({ revision, name }: { revision: string; name: string }, migrations: Migration[]): string {
  return `${revision} ${name}${revision === migrations.at(-1)?.revision ? ' (head)' : ''}`
}

function printHistory(migrations: Migration[], print: (line: string) => void): void {
  for (const [i, migration] of [...migrations.entries()].reverse()) {
    print(`${migrations[i - 1]?.revision ?? 'base'} -> ${describe(migration, migrations)}`)
  }
}

type Applied = Awaited<ReturnType<typeof appliedRevisions>>

function printDetails(migrations: Migration[], applied: Applied, print: (line: string) => void): void {
  const known = new Map(applied.map((row) => [row.revision, row]))
  for (const [i, migration] of [...migrations.entries()].reverse()) {
    const row = known.get(migration.revision)
    print(`Revision ${describe(migration, migrations)}`)
    print(`  follows   ${migrations[i - 1]?.revision ?? 'base'}`)
    print(`  file      ${migration.file}`)
    print(`  checksum  ${migration.checksum}`)
    print(`  applied   ${row === undefined ? 'no' : row.appliedAt.toISOString()}`)
    if (row !== undefined && row.checksum !== migration.checksum)
      print('  the file was changed after it was applied')
    print('')
  }
}
