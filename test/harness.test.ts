import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from './harness.ts'

for (const engine of engines) {
  describe.skipIf(!engine.available)(`harness on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())

    test('opens a database of the engine it names, migrated', async () => {
      expect(opened.database.engine).toBe(engine.name)
      const { rows } = await sql`select count(*) as n from ${sql.table('threads')}`.execute(
        opened.database.db,
      )
      expect(rows).toEqual([{ n: 0 }])
    })

    test('closes what a test left and opens a new one beside', async () => {
      const other = await engine.open()
      const { id } = await other.tb.threads.create({ userId: 'a' }, {})
      expect(await opened.tb.threads.findThread({ userId: 'a' }, id)).toBeUndefined()
      await other.close()
    })
  })
}
