import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'

const unset = { model: null, temperature: null, systemPrompt: null, contextWindow: null }

for (const engine of engines) {
  describe.skipIf(!engine.available)(`configuration on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open({ defaults: { model: 'default-model', temperature: 0 } })
    })
    afterAll(() => opened?.close())
    const scope = { userId: 'u' }
    const newThread = async () => (await opened.tb.threads.create(scope)).id

    test('a thread that sets nothing has the defaults, and says so', async () => {
      const expected = {
        ...unset,
        model: 'default-model',
        temperature: 0,
        settings: {},
        sources: { model: 'default', temperature: 'default', systemPrompt: 'unset', contextWindow: 'unset' },
      }
      expect(await opened.tb.configs.get(scope, await newThread())).toEqual(expected)
      expect(opened.tb.configs.defaults()).toEqual(expected)
    })

    test('what the thread sets comes first, zero and empty text included', async () => {
      const id = await newThread()
      const set = {
        model: 'own',
        temperature: 0,
        systemPrompt: '',
        contextWindow: 1,
        settings: { stop: ['\0', 'ü'] },
      }
      const config = await opened.tb.configs.put(scope, id, set)
      expect(config).toEqual({
        ...set,
        sources: { model: 'thread', temperature: 'thread', systemPrompt: 'thread', contextWindow: 'thread' },
      })
      expect(await opened.tb.configs.get(scope, id)).toEqual(config)
    })

    test('put replaces: what it leaves out falls back', async () => {
      const id = await newThread()
      await opened.tb.configs.put(scope, id, { model: 'own', systemPrompt: 'be kind', settings: { a: 1 } })
      expect(await opened.tb.configs.put(scope, id, { contextWindow: 9 })).toMatchObject({
        model: 'default-model',
        systemPrompt: null,
        contextWindow: 9,
        settings: {},
        sources: { model: 'default', systemPrompt: 'unset', contextWindow: 'thread' },
      })
    })

    test('patch changes what it names only; null falls back; settings are merged', async () => {
      const id = await newThread()
      expect(
        await opened.tb.configs.patch(scope, id, { model: 'first', settings: { a: 1, b: null } }),
      ).toMatchObject({
        model: 'first',
        settings: { a: 1 },
      })
      await opened.tb.configs.patch(scope, id, { temperature: 1.5, settings: { b: 2 } })
      expect(await opened.tb.configs.patch(scope, id, { model: null, settings: { a: null } })).toMatchObject({
        model: 'default-model',
        temperature: 1.5,
        settings: { b: 2 },
        sources: { model: 'default', temperature: 'thread' },
      })
    })

    test('patches of different fields at once are all kept', async () => {
      const id = await newThread()
      await Promise.all([
        opened.tb.configs.patch(scope, id, { model: 'm' }),
        opened.tb.configs.patch(scope, id, { temperature: 2 }),
        opened.tb.configs.patch(scope, id, { systemPrompt: 's' }),
        opened.tb.configs.patch(scope, id, { settings: { a: 1 } }),
        opened.tb.configs.patch(scope, id, { settings: { b: 1 } }),
      ])
      expect(await opened.tb.configs.get(scope, id)).toMatchObject({
        model: 'm',
        temperature: 2,
        systemPrompt: 's',
        settings: { a: 1, b: 1 },
      })
    })

    test.each([
      [{ temperature: 2.1 }],
      [{ temperature: '1' }],
      [{ temperature: Number.NaN }],
      [{ contextWindow: 0 }],
      [{ contextWindow: 1.5 }],
      [{ contextWindow: 2 ** 31 }],
      [{ model: 'a\0' }],
      [{ model: 'x'.repeat(256) }],
      [{ settings: [] }],
      [{ modell: 'x' }],
    ])('%j is invalid input', async (input) => {
      const id = await newThread()
      await expect(opened.tb.configs.put(scope, id, input as never)).rejects.toMatchObject({
        code: 'invalid_input',
      })
      await expect(opened.tb.configs.patch(scope, id, input as never)).rejects.toMatchObject({
        code: 'invalid_input',
      })
    })

    test('an empty patch is invalid input, an empty put is none', async () => {
      const id = await newThread()
      await expect(opened.tb.configs.patch(scope, id, {})).rejects.toMatchObject({ code: 'invalid_input' })
      await opened.tb.configs.put(scope, id, {})
    })

    test('of a thread that is not there is not found', async () => {
      const id = randomUUID()
      const { configs } = opened.tb
      await expect(configs.get(scope, id)).rejects.toMatchObject({ code: 'not_found' })
      await expect(configs.put(scope, id, {})).rejects.toMatchObject({ code: 'not_found' })
      await expect(configs.patch(scope, id, { model: 'a' })).rejects.toMatchObject({ code: 'not_found' })
    })

    test('of a thread that is deleted at the same moment is not found', async () => {
      for (const act of ['put', 'patch'] as const) {
        const id = await newThread()
        let call: Promise<unknown> | undefined
        await opened.database.db.transaction().execute(async (tx) => {
          await sql`delete from ${sql.table('threads')} where id = ${id}::uuid`.execute(tx)
          call = opened.tb.configs[act](scope, id, { model: 'late' }).catch((error: unknown) => error)
          await delay(50)
        })
        expect(await call).toMatchObject({ code: 'not_found' })
      }
    })
  })
}
