// Applies all migrations to a schema of a PostgreSQL database and says which steps were its own.
import { setTimeout as delay } from 'node:timers/promises'
import { silentLog } from '../../src/core/log.ts'
import { upgrade } from '../../src/db/migrate.ts'
import { loadMigrations } from '../../src/db/migrations.ts'
import { openPostgres } from '../../src/db/postgres.ts'

const { url, schema, startAt } = JSON.parse(process.argv[2] ?? '{}')
const database = await openPostgres({ url, schema, log: silentLog, poolSize: 1 })
const migrations = await loadMigrations()
await delay(startAt - Date.now())
const steps = await upgrade(database, migrations)
console.log(JSON.stringify(steps.map(({ revision }) => revision)))
await database.close()
