import { CompiledQuery, type Kysely, sql, type Transaction } from 'kysely'
import { ThreadbaseError } from '../core/errors.ts'
import type { Database } from './database.ts'
import { findMigration, inSchema, type Migration, quoteIdentifier } from './migrations.ts'
import type { Schema } from './schema.ts'

export type AppliedRevision = { revision: string; name: string; checksum: string; appliedAt: Date }

export type MigrationStep = { direction: 'up' | 'down'; revision: string; name: string; ms: number }

/**
 * The revisions that the database says it has, oldest first; none for an empty database.
 */
export async function appliedRevisions(database: Database): Promise<AppliedRevision[]> {
  if (!(await hasRevisionTable(database.db, database.schema))) return []
  const rows = await database.db.selectFrom('schema_revisions').selectAll().orderBy('revision').execute()
  return rows.map((row) => ({
    revision: row.revision,
    name: row.name,
    checksum: row.checksum,
    appliedAt: row.applied_at,
  }))
}

async function hasRevisionTable(db: Kysely<Schema>, schema: string): Promise<boolean> {
  const result = await sql<{ present: boolean }>`
    /* migrate.present */ select exists (
      select 1 from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where n.nspname = ${schema} and c.relname = 'schema_revisions') as present`.execute(db)
  return result.rows[0]?.present === true
}

/**
 * Applies what is missing up to `target` (a revision, `head`, or `+n`), each step in a transaction of its own.
 * Safe to call from many processes at once: one migrates, the others wait and find nothing to do.
 * @returns the steps that this call made
 * @throws not_found for an unknown target; unsupported when the database is newer than this version
 */
export async function upgrade(
  database: Database,
  migrations: Migration[],
  target = 'head',
  onStep: (step: MigrationStep) => void = () => {},
): Promise<MigrationStep[]> {
  const before = (await appliedRevisions(database)).at(-1)?.revision
  const last = resolveUp(migrations, before, target)
  // no change, and so no right to make one, where nothing is missing
  if (last === undefined || (before !== undefined && before >= last)) return []
  await prepare(database)
  const steps: MigrationStep[] = []
  for (const migration of migrations) {
    if (migration.revision > last) break
    const step = await stepUp(database, migration, migrations)
    if (step === undefined) continue
    steps.push(step)
    onStep(step)
  }
  return steps
}

/**
 * Takes back steps, newest first, down to `target`: `-n` steps, a revision that stays, or `base` for all.
 * @throws invalid_input when there is nothing to take back; not_found for an unknown target
 */
export async function downgrade(
  database: Database,
  migrations: Migration[],
  target: string,
  onStep: (step: MigrationStep) => void = () => {},
): Promise<MigrationStep[]> {
  const applied = await appliedRevisions(database)
  const stays = resolveDown(migrations, applied, target)
  const steps: MigrationStep[] = []
  for (const { revision } of applied.toReversed()) {
    if (stays !== undefined && revision <= stays) break
    const step = await stepDown(database, findMigration(migrations, revision))
    if (step === undefined) continue
    steps.push(step)
    onStep(step)
  }
  return steps
}

/** Writes down that the database is at `target` (a revision, `head` or `base`) without running anything. */
export async function stamp(database: Database, migrations: Migration[], target: string): Promise<void> {
  await prepare(database)
  const last = target === 'base' ? undefined : resolveUp(migrations, undefined, target)
  await database.db.transaction().execute(async (tx) => {
    await lock(tx, database.schema)
    await tx.deleteFrom('schema_revisions').execute()
    const rows = migrations.filter(({ revision }) => last !== undefined && revision <= last).map(toRow)
    if (rows.length > 0) await tx.insertInto('schema_revisions').values(rows).execute()
  })
}

/** @throws unavailable when a migration is missing; unsupported when the database is newer than this version. */
export async function requireMigrated(database: Database, migrations: Migration[]): Promise<void> {
  const current = (await appliedRevisions(database)).at(-1)?.revision
  const head = migrations.at(-1)?.revision
  refuseNewer(migrations, current)
  if (current !== head) {
    throw new ThreadbaseError(
      'unavailable',
      `the database is at revision ${current ?? 'none'} and this version needs ${head}: run \`threadbase db upgrade\``,
      { current: current ?? null, head },
    )
  }
}

function refuseNewer(migrations: Migration[], current: string | undefined): void {
  const head = migrations.at(-1)?.revision ?? ''
  if (current !== undefined && current > head) {
    throw new ThreadbaseError(
      'unsupported',
      `the database is at revision ${current}, which is newer than this version of Threadbase (${head}): use a newer version`,
      { current, head },
    )
  }
}

function resolveUp(migrations: Migration[], current: string | undefined, target: string): string | undefined {
  refuseNewer(migrations, current)
  if (target === 'head') return migrations.at(-1)?.revision
  const relative = /^\+(\d+)$/.exec(target)?.[1]
  if (relative === undefined) return findMigration(migrations, target).revision
  const pending = migrations.filter(({ revision }) => current === undefined || revision > current)
  const chosen = pending[Number(relative) - 1]
  if (chosen === undefined) {
    throw new ThreadbaseError(
      'invalid_input',
      `there are only ${pending.length} migrations above the current one`,
    )
  }
  return chosen.revision
}

function resolveDown(
  migrations: Migration[],
  applied: AppliedRevision[],
  target: string,
): string | undefined {
  if (applied.length === 0)
    throw new ThreadbaseError('invalid_input', 'the database has no migration to take back')
  if (target === 'base') return undefined
  const relative = /^-(\d+)$/.exec(target)?.[1]
  if (relative === undefined) return findMigration(migrations, target).revision
  const count = Number(relative)
  if (count < 1 || count > applied.length) {
    throw new ThreadbaseError(
      'invalid_input',
      `the database has ${applied.length} migrations to take back, not ${count}`,
    )
  }
  return applied[applied.length - count - 1]?.revision
}

/** Makes the schema and the table of revisions where they are missing: `if not exists` asks for the right to create. */
async function prepare({ db, schema }: Database): Promise<void> {
  const name = quoteIdentifier(schema)
  await db.transaction().execute(async (tx) => {
    await lock(tx, schema)
    if (!(await hasSchema(tx, schema))) await run(tx, `create schema ${name}`)
    if (await hasRevisionTable(tx, schema)) return
    await run(
      tx,
      `create table ${name}.schema_revisions (
         revision   text primary key,
         name       text not null,
         checksum   text not null,
         applied_at timestamptz(3) not null default now()
       )`,
    )
  })
}

async function hasSchema(db: Kysely<Schema>, schema: string): Promise<boolean> {
  const { rows } =
    await sql`/* migrate.schema */ select 1 from pg_namespace where nspname = ${schema}`.execute(db)
  return rows.length > 0
}

/** Undefined when another process was faster. */
async function stepUp(
  database: Database,
  migration: Migration,
  all: Migration[],
): Promise<MigrationStep | undefined> {
  const started = performance.now()
  const done = await database.db.transaction().execute(async (tx) => {
    await lock(tx, database.schema)
    const newest = await tx
      .selectFrom('schema_revisions')
      .select('revision')
      .orderBy('revision', 'desc')
      .limit(1)
      .executeTakeFirst()
    refuseNewer(all, newest?.revision)
    if (newest !== undefined && newest.revision >= migration.revision) return false
    // the row comes first: should the lock ever fail to exclude another, its key does
    await tx.insertInto('schema_revisions').values(toRow(migration)).execute()
    await run(tx, inSchema(migration.up, database.schema))
    return true
  })
  return done ? toStep('up', migration, started) : undefined
}

async function stepDown(database: Database, migration: Migration): Promise<MigrationStep | undefined> {
  const started = performance.now()
  const done = await database.db.transaction().execute(async (tx) => {
    await lock(tx, database.schema)
    const gone = await tx
      .deleteFrom('schema_revisions')
      .where('revision', '=', migration.revision)
      .executeTakeFirst()
    if (gone.numDeletedRows === 0n) return false
    await run(tx, inSchema(migration.down, database.schema))
    return true
  })
  return done ? toStep('down', migration, started) : undefined
}

async function lock(tx: Transaction<Schema>, schema: string): Promise<void> {
  await sql`/* migrate.lock */ select pg_advisory_xact_lock(hashtext(${`threadbase migrations ${schema}`}))`.execute(
    tx,
  )
}

/** Several statements in one text, which may take as long as they need. */
export async function run(tx: Kysely<Schema>, text: string): Promise<void> {
  if (text.trim() !== '') await tx.executeQuery(CompiledQuery.raw(`/* migrate.run */ ${text}`))
}

function toRow({ revision, name, checksum }: Migration): {
  revision: string
  name: string
  checksum: string
} {
  return { revision, name, checksum }
}

function toStep(direction: 'up' | 'down', { revision, name }: Migration, started: number): MigrationStep {
  return { direction, revision, name, ms: Math.round(performance.now() - started) }
}
