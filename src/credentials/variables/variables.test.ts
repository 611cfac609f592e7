import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, openServices, TEST_KEY, type TestDatabase } from '../../../test/harness.ts'
import { readKey } from '../../core/key-ring.ts'
import type { Threadbase } from '../../threadbase.ts'
import type { NewVariable, VariablePatch } from '../schema.ts'
import { fixedKeys, newEncryptionKey } from '../service.ts'

const KEY_ID = String(readKey(TEST_KEY)?.id)
const BY = { userId: 'tests', via: 'library' } as const
const SECRET = 'a secret of some length, 32 or more'
const newScope = () => ({ userId: `u-${randomUUID()}` })
type Scope = ReturnType<typeof newScope>

for (const engine of engines) {
  describe.skipIf(!engine.available)(`variables on ${engine.name}`, () => {
    let opened: TestDatabase
    let tb: Threadbase
    beforeAll(async () => {
      opened = await engine.open()
      tb = opened.tb
    })
    afterAll(() => opened?.close())
    const create = (scope: Scope, input: NewVariable) => tb.variables.create(scope, BY, input)
    const update = (scope: Scope, id: string, patch: VariablePatch) =>
      tb.variables.update(scope, BY, id, patch)

    test('one is made, read, changed, resolved and removed', async () => {
      const scope = newScope()
      const made = await create(scope, { name: 'OPENAI', value: SECRET, defaultFields: ['openai_api_key'] })
      expect(made).toEqual({
        id: expect.any(String),
        userId: scope.userId,
        name: 'OPENAI',
        type: 'credential',
        value: null,
        mask: 'a secr****more',
        isReadable: true,
        keyId: KEY_ID,
        defaultFields: ['openai_api_key'],
        createdAt: expect.any(Date),
        updatedAt: expect.any(Date),
      })
      expect(await tb.variables.getVariable(scope, made.id)).toEqual(made)
      expect(await tb.variables.resolve(scope, 'OPENAI')).toBe(SECRET)
      const patch = { name: 'MODEL', value: 'gpt-4o', type: 'generic', defaultFields: [] } as const
      const changed = await update(scope, made.id, { ...patch, defaultFields: [] })
      expect(changed).toMatchObject({ ...patch, id: made.id, mask: '****', createdAt: made.createdAt })
      await expect(tb.variables.resolve(scope, 'OPENAI')).rejects.toMatchObject({ code: 'not_found' })
      expect(await tb.variables.resolve(scope, 'MODEL')).toBe('gpt-4o')
      expect((await tb.variables.list(scope)).items).toEqual([changed])
      expect(await tb.variables.delete(scope, BY, made.id)).toBe(true)
      expect(await tb.variables.delete(scope, BY, made.id)).toBe(false)
      await expect(tb.variables.getVariable(scope, made.id)).rejects.toMatchObject({ code: 'not_found' })
      await expect(update(scope, made.id, { name: 'x' })).rejects.toMatchObject({ code: 'not_found' })
      const { items } = await tb.audit.list(scope)
      expect(items.map(({ action, target }) => [action, target])).toEqual([
        ['variable_deleted', `variable ${made.id}`],
        ['variable_changed', `variable ${made.id}`],
        ['variable_created', `variable ${made.id}`],
      ])
    })

    test('what a patch leaves out stays', async () => {
      const scope = newScope()
      const all = { name: 'a', value: SECRET, type: 'generic', defaultFields: ['f', 'g'] } as const
      const { id } = await create(scope, { ...all, defaultFields: ['f', 'g'] })
      const patches: VariablePatch[] = [
        { name: 'b' },
        { defaultFields: ['h'] },
        { value: 'other' },
        { type: 'credential' },
      ]
      let expected: object = all
      for (const patch of patches) {
        expected = { ...expected, ...patch, ...('type' in patch ? { value: null } : {}) }
        expect(await update(scope, id, patch)).toMatchObject(expected)
      }
      expect(await tb.variables.resolve(scope, 'b')).toBe('other')
    })

    test('the value of a credential is not shown by making it generic', async () => {
      const scope = newScope()
      const { id } = await create(scope, { name: 'a', value: SECRET })
      for (const patch of [{ type: 'generic' }, { type: 'generic', name: 'b' }] as const)
        await expect(update(scope, id, patch)).rejects.toMatchObject({ code: 'invalid_input' })
      expect(await tb.variables.getVariable(scope, id)).toMatchObject({ type: 'credential', name: 'a' })
      expect(await update(scope, id, { type: 'generic', value: 'new' })).toMatchObject({ value: 'new' })
      // it is one already
      expect(await update(scope, id, { type: 'generic' })).toMatchObject({ value: 'new' })
    })

    test('nor by many who change its type and value at the same time', async () => {
      const scope = newScope()
      const { id } = await create(scope, { name: 'a', value: SECRET })
      const patches: VariablePatch[] = Array.from({ length: 30 }, (_, i) =>
        i % 3 === 0
          ? { type: 'credential', value: `hidden ${i}` }
          : i % 3 === 1
            ? { type: 'generic' }
            : { type: 'generic', value: `shown ${i}` },
      )
      const results = await Promise.allSettled(patches.map((patch) => update(scope, id, patch)))
      const seen = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value.value] : []))
      for (const value of seen) expect(value === null || value.startsWith('shown')).toBe(true)
    })

    test('names are unique for a user, in their letters', async () => {
      const [scope, other] = [newScope(), newScope()]
      const { id } = await create(scope, { name: 'a', value: 'x' })
      const second = await create(scope, { name: 'A', value: 'y' })
      await create(other, { name: 'a', value: 'z' })
      const taken = { code: 'conflict', details: { name: 'a' } }
      await expect(create(scope, { name: 'a', value: 'w' })).rejects.toMatchObject(taken)
      await expect(update(scope, second.id, { name: 'a', value: 'w' })).rejects.toMatchObject(taken)
      expect(await update(scope, id, { name: 'a' })).toMatchObject({ name: 'a' })
      const values = ['a', 'A'].map((name) => tb.variables.resolve(scope, name))
      expect(await Promise.all(values)).toEqual(['x', 'y'])
      const racing = Array.from({ length: 10 }, () => create(scope, { name: 'race', value: 'x' }))
      const made = (await Promise.allSettled(racing)).filter(({ status }) => status === 'fulfilled')
      expect(made).toHaveLength(1)
    })

    test.each([
      ['no name', { value: 'x' }],
      ['an empty name', { name: '', value: 'x' }],
      ['a name with a space before', { name: ' a', value: 'x' }],
      ['a name with a line break behind', { name: 'a\n', value: 'x' }],
      ['a name with NUL', { name: 'a\0b', value: 'x' }],
      ['a name that is too long', { name: 'x'.repeat(256), value: 'x' }],
      ['no value', { name: 'a' }],
      ['an empty value', { name: 'a', value: '' }],
      ['a value of 1 MB', { name: 'a', value: 'hunter2'.repeat(150_000) }],
      ['a value of more bytes than characters', { name: 'a', value: '\u00fc'.repeat(40_000) }],
      ['a value with half of a character', { name: 'a', value: 'hunter2\udc00' }],
      ['another type', { name: 'a', value: 'x', type: 'secret' }],
      ['a field without a name', { name: 'a', value: 'x', defaultFields: [''] }],
      ['too many fields', { name: 'a', value: 'x', defaultFields: Array(101).fill('f') }],
      ['a field that is not known', { name: 'a', value: 'x', userId: 'somebody' }],
    ])('one with %s is refused', async (_, input) => {
      const scope = newScope()
      const failing = create(scope, input as NewVariable)
      await expect(failing).rejects.toMatchObject({ code: 'invalid_input' })
      await expect(failing).rejects.not.toThrow(/hunter2/)
      const { id } = await create(scope, { name: 'before', value: SECRET })
      const { name: _name, ...rest } = input as NewVariable
      const patch = _name === 'a' ? rest : { name: _name }
      if (Object.values(patch).some((value) => value !== undefined && value !== 'x'))
        await expect(update(scope, id, patch)).rejects.toMatchObject({ code: 'invalid_input' })
      await expect(update(scope, id, {})).rejects.toMatchObject({ code: 'invalid_input' })
      expect(await tb.variables.resolve(scope, 'before')).toBe(SECRET)
    })

    test('every text comes back as it is: NUL, white space, any character', async () => {
      const scope = newScope()
      const { id } = await create(scope, { name: 'a', value: '\0', type: 'generic' })
      const texts = fc.oneof(
        fc.string({ unit: 'binary', minLength: 1 }),
        fc.constantFrom('\0', ' ', '\n', ' x\r\n', '\ufeff', '\ufffd', 'x'.repeat(65_536), '-----BEGIN\n…\n'),
      )
      await fc.assert(
        fc.asyncProperty(texts, async (value) => {
          expect((await update(scope, id, { value })).value).toBe(value)
          expect((await tb.variables.getVariable(scope, id)).value).toBe(value)
          expect(await tb.variables.resolve(scope, 'a')).toBe(value)
        }),
        { numRuns: 30 },
      )
    })

    test('a list has pages in the order of names, whatever comes in between', async () => {
      const scope = newScope()
      const names = ['b', 'a', 'C', 'é', 'z', '😀', '"', '\\', '\u0001', 'ß', '日本'].map((n) => `${n}${n}`)
      for (const name of names) await create(scope, { name, value: 'x' })
      const found: string[] = []
      let cursor: string | undefined
      do {
        const page = await tb.variables.list(scope, { limit: 2, cursor })
        expect(page.items.length).toBeLessThanOrEqual(2)
        found.push(...page.items.map(({ name }) => name))
        if (cursor === undefined) await create(scope, { name: '  0'.trim(), value: 'x' })
        cursor = page.nextCursor
      } while (cursor !== undefined)
      const bytes = (text: string) => Buffer.from(text)
      expect(found.filter((name) => name !== '0')).toEqual(
        names.toSorted((a, b) => Buffer.compare(bytes(a), bytes(b))),
      )
      for (const bad of ['x', Buffer.from('["threads","a"]').toString('base64url')])
        await expect(tb.variables.list(scope, { cursor: bad })).rejects.toMatchObject({
          code: 'invalid_input',
        })
      const nul = Buffer.from('["variables","a\\u0000"]').toString('base64url')
      await expect(tb.variables.list(scope, { cursor: nul })).rejects.toMatchObject({ code: 'invalid_input' })
      await expect(tb.variables.list(scope, { limit: 101 })).rejects.toMatchObject({ code: 'invalid_input' })
    })

    test('the longest name can be paged behind', async () => {
      const scope = newScope()
      for (const end of ['a', 'b'])
        await create(scope, { name: `x${'\u0001'.repeat(253)}${end}`, value: 'x' })
      const first = await tb.variables.list(scope, { limit: 1 })
      const second = await tb.variables.list(scope, { limit: 1, cursor: first.nextCursor })
      expect(second.items).toHaveLength(1)
    })

    test('a row that does not open is listed and can be renamed and stored anew; resolve names its key', async () => {
      const scope = newScope()
      const keys = fixedKeys([newEncryptionKey()])
      const others = await openServices(opened.database, { keys })
      const { id, keyId } = await others.variables.create(scope, BY, {
        name: 'a',
        value: 'x',
        type: 'generic',
      })
      const { id: damaged } = await create(scope, { name: 'b', value: 'x' })
      await sql`update ${sql.table('variables')} set token = 'x', key_id = null where id = ${damaged}::uuid`.execute(
        opened.database.db,
      )
      await create(scope, { name: 'c', value: SECRET })
      expect((await tb.variables.list(scope)).items).toMatchObject([
        { name: 'a', value: null, mask: null, isReadable: false, keyId },
        { name: 'b', value: null, mask: null, isReadable: false, keyId: null },
        { name: 'c', mask: 'a secr****more', isReadable: true },
      ])
      await expect(tb.variables.resolve(scope, 'a')).rejects.toMatchObject({
        code: 'unavailable',
        message: expect.stringContaining(String(keyId)),
        details: { name: 'a', keyId, variableId: id },
      })
      await expect(tb.variables.resolve(scope, 'b')).rejects.toMatchObject({ code: 'unavailable' })
      expect(await update(scope, id, { name: 'd' })).toMatchObject({ mask: null, keyId })
      expect(await update(scope, id, { value: 'new' })).toMatchObject({ value: 'new', keyId: KEY_ID })
      expect(await tb.variables.resolve(scope, 'd')).toBe('new')
    })

    test('rows that are moved over by SQL need no id', async () => {
      const scope = newScope()
      const { id } = await create(scope, { name: 'a', value: SECRET })
      await sql`
        insert into ${sql.table('variables')} (user_id, name, type, token)
        select user_id, 'moved', 'credential', token from ${sql.table('variables')} where id = ${id}::uuid`.execute(
        opened.database.db,
      )
      expect(await tb.variables.resolve(scope, 'moved')).toBe(SECRET)
    })
  })
}
