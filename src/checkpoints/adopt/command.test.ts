import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { cleanUpAfterAll, run, start } from '../../../test/e2e/processes.ts'
import { postgresUrl } from '../../../test/harness.ts'
import {
  adopt,
  checkpointOf,
  hasPostgres,
  listAll,
  opened,
  own,
  peer,
  pool,
  put,
  schema,
  useStockTables,
  writeThread,
} from '../../../test/stock-checkpoints.ts'
import { ThreadbaseSaver } from '../service.ts'

cleanUpAfterAll()

describe.skipIf(!hasPostgres)('threadbase checkpoints adopt', () => {
  useStockTables()

  const env = () => ({
    DATABASE_URL: String(postgresUrl),
    DATABASE_SCHEMA: opened.database.schema,
    LOG_LEVEL: 'warn',
  })

  test('takes everything for user local, and says so', async () => {
    await writeThread(peer, 't')
    const dry = await run(['checkpoints', 'adopt', '--schema', schema, '--dry-run', '--json'], env())
    expect(dry).toMatchObject({ code: 0, stderr: '' })
    expect(JSON.parse(dry.stdout)).toMatchObject({ threads: 1, dry_run: true })
    const { code, stdout, stderr } = await run(['checkpoints', 'adopt', '--schema', schema], env())
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toMatch(
      /^threads +1\ncheckpoints +\d+\nwrites +\d+\nstore items +0\nalready there +0 .*\n.* → .* KB in .* s\n$/,
    )
    expect(await listAll(own, 't')).toEqual(await listAll(peer, 't'))
    const again = await run(['checkpoints', 'adopt', '--schema', schema, '--json'], env())
    expect(JSON.parse(again.stdout)).toMatchObject({
      threads: 0,
      checkpoints: 0,
      known: expect.any(Number),
    })
    const other = await run(['checkpoints', 'adopt', '--schema', schema, '--user', 'u7', '--json'], env())
    expect(JSON.parse(other.stdout)).toMatchObject({ threads: 1 })
    expect(await listAll(new ThreadbaseSaver(opened.database, { userId: 'u7' }), 't')).toHaveLength(
      JSON.parse(other.stdout).checkpoints,
    )
  })

  test('goes on after kill -9', async () => {
    const messages = Array.from({ length: 40 }, () => ({ content: randomBytes(10_000).toString('hex') }))
    for (let n = 1; n <= 40; n++) await put(peer, 'long', checkpointOf({ messages: messages.slice(0, n) }, n))
    const child = start(['checkpoints', 'adopt', '--schema', schema], env())
    const working = `select from pg_stat_activity where query like '%adopt.take_values%' and query not like '%pg_stat%'`
    while (child.process.exitCode === null && (await pool.query(working)).rowCount === 0) await delay(2)
    child.kill('SIGKILL')
    expect(await child.exited).toMatchObject({ signal: 'SIGKILL' })
    expect(await adopt()).toMatchObject({ threads: 1, checkpoints: 40 })
    expect(await listAll(own, 'long')).toEqual(await listAll(peer, 'long'))
  })

  test('refuses the embedded store, a schema without tables, and to store what would not be read', async () => {
    const embedded = await run(['checkpoints', 'adopt'], { DATA_DIR: '/nowhere' })
    expect(embedded).toMatchObject({ code: 2, stderr: expect.stringContaining('DATABASE_URL') })
    const empty = await run(['checkpoints', 'adopt', '--schema', 'nowhere'], env())
    expect(empty).toMatchObject({ code: 3, stdout: '', stderr: expect.stringContaining('nowhere') })
    const encrypted = await run(['checkpoints', 'adopt', '--schema', schema], {
      ...env(),
      CHECKPOINT_ENCRYPTION: 'on',
      ENCRYPTION_KEY: Buffer.alloc(32, 7).toString('base64'),
    })
    expect(encrypted).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('CHECKPOINT_ALLOW_PLAINTEXT'),
    })
  })
})
