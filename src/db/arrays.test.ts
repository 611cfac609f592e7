import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import { byteaArray, doubleArray, intArray, realArray, textArray, uuidArray } from './arrays.ts'

const ID = '0192f0c1-2f6b-7cc0-8d2e-5f0a6d2f4b11'

for (const engine of engines) {
  describe.skipIf(!engine.available)(`binary arrays on ${engine.name}`, () => {
    let store: TestDatabase
    beforeAll(async () => {
      store = await engine.open({ migrations: [] })
    })
    afterAll(() => store?.close())

    test.each([
      {
        texts: ['', 'a', null, 'é日本😀', '{"a":"\\"}', 'NULL', ' , '],
        uuids: [ID, null, ID.toUpperCase()],
        ints: [0, null, -1, 2_147_483_647],
        bytes: [Buffer.from([0, 255, 10]), null, Buffer.alloc(0)],
      },
      { texts: [], uuids: [], ints: [], bytes: [] },
      { texts: [null], uuids: [null], ints: [null], bytes: [null] },
      {
        texts: ['x'.repeat(100_000)],
        uuids: [ID],
        ints: [-2_147_483_648],
        bytes: [Buffer.alloc(100_000, 7)],
      },
    ])('arrive as they were', async ({ texts, uuids, ints, bytes }) => {
      const { rows } = await sql`
        select ${textArray(texts)}::text[] as texts, ${uuidArray(uuids)}::uuid[] as uuids, ${intArray(ints)}::int[] as ints,
               ${byteaArray(bytes)}::bytea[] as bytes,
               array_length(${textArray(texts)}::text[], 1) as length`.execute(store.database.db)
      expect(rows).toEqual([
        {
          texts,
          uuids: uuids.map((id) => id?.toLowerCase() ?? null),
          ints,
          bytes,
          length: texts.length || null,
        },
      ])
    })

    test.each([[[0.1, null, -1e300, 0]], [[]], [[null]]])(
      'doubles arrive as they were: %j',
      async (doubles) => {
        const { rows } = await sql<{ doubles: number[] }>`
        select ${doubleArray(doubles)}::float8[] as doubles`.execute(store.database.db)
        expect(rows).toEqual([{ doubles }])
      },
    )

    test.each([[[0.5, -1, 1e-20, 3e38]], [[]], [[0.1]]])(
      'reals arrive as a float4 has them: %j',
      async (reals) => {
        const { rows } = await sql<{ reals: number[] }>`
        select ${realArray(reals)}::real[] as reals`.execute(store.database.db)
        expect(rows[0]?.reals.map(Math.fround)).toEqual(reals.map(Math.fround))
      },
    )
  })
}
