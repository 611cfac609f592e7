import { Type } from 'typebox'
import { describe, expect, test } from 'vitest'
import { camelCase, camelKeys, snakeCase, snakeKeys, snakeSchema } from './case.ts'
import { ERROR_CODES, EXIT_CODE, HTTP_STATUS, isThreadbaseError, ThreadbaseError } from './errors.ts'
import { closed, Nullable, Text, Timestamp, Uuid } from './fields.ts'
import { idFromName, isUuid, newId, requireUuid } from './ids.ts'
import { decodeCursor, encodeCursor, toPage } from './pages.ts'
import { userOf } from './scope.ts'
import { parseInput } from './validate.ts'

const failure = (act: () => unknown): ThreadbaseError => {
  try {
    act()
  } catch (error) {
    if (isThreadbaseError(error)) return error
    throw error
  }
  throw new Error('nothing was thrown')
}

describe('case', () => {
  test('names go to snake_case and back', () => {
    for (const [camel, snake] of [
      ['createdAt', 'created_at'],
      ['id', 'id'],
      ['toolOutput', 'tool_output'],
      ['openAiKey', 'open_ai_key'],
    ] as const) {
      expect(snakeCase(camel)).toBe(snake)
      expect(camelCase(snake)).toBe(camel)
    }
  })

  test('only the own keys are renamed; values are data', () => {
    const value = { createdAt: 1, meta: { someKey: { innerKey: [{ deepKey: 1 }] } }, gone: undefined }
    expect(snakeKeys(value)).toEqual({ created_at: 1, meta: { someKey: { innerKey: [{ deepKey: 1 }] } } })
    expect(camelKeys({ created_at: 1, meta: { some_key: 1 } })).toEqual({
      createdAt: 1,
      meta: { some_key: 1 },
    })
  })

  test('a schema keeps its rules under the new names', () => {
    const schema = snakeSchema(
      Type.Object({ messageId: Type.String(), parentId: Type.Optional(Type.String()) }, closed),
    )
    expect(parseInput(schema, { message_id: 'a' })).toEqual({ message_id: 'a' })
    expect(failure(() => parseInput(schema, { parent_id: 'a' })).message).toContain('message_id')
    expect(failure(() => parseInput(schema, { message_id: 'a', messageId: 'b' })).message).toContain(
      'messageId',
    )
  })
})

describe('errors', () => {
  test('every code has one HTTP status and one exit code, all failures', () => {
    expect(Object.keys(HTTP_STATUS).sort()).toEqual([...ERROR_CODES].sort())
    expect(Object.keys(EXIT_CODE).sort()).toEqual([...ERROR_CODES].sort())
    for (const code of ERROR_CODES) {
      expect(HTTP_STATUS[code]).toBeGreaterThanOrEqual(400)
      expect(HTTP_STATUS[code]).toBeLessThan(600)
      // 1 is what any other failure exits with
      expect(EXIT_CODE[code]).toBeGreaterThan(1)
      expect(EXIT_CODE[code]).toBeLessThan(126)
    }
  })

  test('an error carries code, details and cause', () => {
    const cause = new Error('inner')
    const error = new ThreadbaseError('conflict', 'text', { a: 1 }, { cause })
    expect(error).toMatchObject({ code: 'conflict', message: 'text', details: { a: 1 }, cause })
    expect(isThreadbaseError(error, 'conflict')).toBe(true)
    expect(isThreadbaseError(error, 'not_found')).toBe(false)
    expect(isThreadbaseError(cause)).toBe(false)
  })
})

describe('cursors', () => {
  test('give back their key', () => {
    const cursor = encodeCursor('threads', [17, 'abc-é'])
    expect(cursor).toMatch(/^[\w-]+$/)
    expect(decodeCursor('threads', ['number', 'string'], cursor)).toEqual([17, 'abc-é'])
  })

  test.each([
    ['no cursor at all', 'hello'],
    ['empty', ''],
    ['not base64', '%%%'],
    ['no list', Buffer.from('{"a":1}').toString('base64url')],
    ['of another list', encodeCursor('messages', [17, 'abc'])],
    ['too short', encodeCursor('threads', [17])],
    ['too long', encodeCursor('threads', [17, 'abc', 1])],
    ['wrong types', encodeCursor('threads', ['17', 'abc'])],
    ['null in it', Buffer.from('["threads",null,"a"]').toString('base64url')],
  ])('a cursor that is %s is invalid input', (_, cursor) => {
    expect(failure(() => decodeCursor('threads', ['number', 'string'], cursor))).toMatchObject({
      code: 'invalid_input',
      details: { field: 'cursor' },
    })
  })

  test('a page has a cursor only when there is more', () => {
    expect(toPage([1, 2, 3], 3, String)).toEqual({ items: [1, 2, 3] })
    expect(toPage([1, 2, 3, 4], 3, String)).toEqual({ items: [1, 2, 3], nextCursor: '3' })
    expect(toPage([], 3, String)).toEqual({ items: [] })
  })
})

describe('parseInput', () => {
  const Schema = Type.Object(
    {
      role: Type.Enum(['user', 'tool']),
      title: Type.Optional(Nullable(Text(5))),
      id: Type.Optional(Uuid()),
      at: Type.Optional(Timestamp()),
      n: Type.Optional(Type.Integer({ minimum: 1, maximum: 9 })),
      list: Type.Optional(Type.Array(Type.Object({ a: Type.String() }, closed), { maxItems: 2 })),
    },
    closed,
  )
  const messageOf = (value: unknown) => {
    const error = failure(() => parseInput(Schema, value, 'body'))
    expect(error.code).toBe('invalid_input')
    return error.message
  }

  test('lets good input through as it is', () => {
    const value = {
      role: 'user',
      title: null,
      id: '0192f0c1-2f6b-7cc0-8d2e-5f0a6d2f4b11',
      at: '2026-01-31T12:00:00.5+02:00',
      n: 9,
      list: [{ a: '' }],
    }
    expect(parseInput(Schema, value)).toBe(value)
  })

  test('names a field that is not known', () => {
    expect(messageOf({ role: 'user', rolle: 1 })).toMatch(/^body .*rolle/)
    expect(messageOf({ role: 'user', list: [{ a: 'x' }, { a: 'x', bee: 1 }] })).toMatch(
      /^body\.list\.1 .*bee/,
    )
  })

  test('names a field that is missing', () => {
    expect(messageOf({})).toMatch(/^body .*role/)
    expect(messageOf({ role: 'user', list: [{}] })).toMatch(/^body\.list\.0 .*\ba\b/)
  })

  test('names the allowed values', () => {
    expect(messageOf({ role: 'robot' })).toMatch(/^body\.role .*user, tool/)
  })

  test('says where a value has the wrong type, form or size', () => {
    for (const [value, where] of [
      [{ role: 'user', n: '3' }, 'body.n'],
      [{ role: 'user', n: 1.5 }, 'body.n'],
      [{ role: 'user', n: 10 }, 'body.n'],
      [{ role: 'user', title: 5 }, 'body.title'],
      [{ role: 'user', title: 'toolong' }, 'body.title'],
      [{ role: 'user', title: 'a\0' }, 'body.title'],
      [{ role: 'user', title: 'a\ud800' }, 'body.title'],
      [{ role: 'user', id: 'x' }, 'body.id'],
      [{ role: 'user', at: 'yesterday' }, 'body.at'],
      [{ role: 'user', list: {} }, 'body.list'],
      [{ role: 'user', list: [{ a: '' }, { a: '' }, { a: '' }] }, 'body.list'],
      [null, 'body'],
      [[], 'body'],
      ['text', 'body'],
      [undefined, 'body'],
    ] as const) {
      expect(messageOf(value), JSON.stringify(value)).toMatch(new RegExp(`^${where.replace('.', '\\.')} `))
    }
  })

  test('counts characters, not UTF-16 units', () => {
    expect(parseInput(Schema, { role: 'user', title: '😀😀😀😀😀' })).toBeDefined()
    expect(messageOf({ role: 'user', title: '😀😀😀😀😀😀' })).toContain('body.title')
  })

  test('of a union says what is wrong with the branch that is meant', () => {
    const item = Type.Union([Type.String({ minLength: 1 }), Type.Object({ text: Type.String() })])
    const problemsOf = (value: unknown) =>
      (failure(() => parseInput(Nullable(item), value)).details as { problems: object[] }).problems
    expect(problemsOf({ note: 'x' })).toEqual([{ path: '', message: 'lacks a required field: text' }])
    expect(problemsOf({ text: 5 })).toEqual([{ path: 'text', message: 'must be string' }])
    expect(problemsOf('')).toEqual([{ path: '', message: expect.stringMatching(/fewer than 1 char/) }])
    expect(problemsOf(5)).toEqual([{ path: '', message: 'must be string or object' }])
  })

  test('lists several problems, ten at most', () => {
    const error = failure(() => parseInput(Schema, { role: 'x', n: 0, id: 1 }))
    const { problems } = error.details as { problems: { path: string }[] }
    expect(problems.map(({ path }) => path).sort()).toEqual(['id', 'n', 'role'])
    const many = failure(() =>
      parseInput(
        Type.Array(Type.Integer()),
        Array.from({ length: 50 }, () => 'x'),
      ),
    )
    expect((many.details as { problems: unknown[] }).problems.length).toBeLessThanOrEqual(10)
  })
})

describe('ids and scope', () => {
  test('new ids are UUIDs that sort by time', () => {
    const ids = Array.from({ length: 500 }, newId)
    expect(ids.every(isUuid)).toBe(true)
    expect([...ids].sort()).toEqual(ids)
    expect(new Set(ids).size).toBe(ids.length)
  })

  test('a name has one id', () => {
    const namespace = '6ba7b810-9dad-11d1-80b4-00c04fd430c8'
    expect(idFromName(namespace, 'a')).toBe(idFromName(namespace, 'a'))
    expect(idFromName(namespace, 'a')).not.toBe(idFromName(namespace, 'b'))
  })

  test('a UUID is lower-cased; anything else is refused by name and not repeated at length', () => {
    expect(requireUuid('0192F0C1-2F6B-7CC0-8D2E-5F0A6D2F4B11', 'x')).toBe(
      '0192f0c1-2f6b-7cc0-8d2e-5f0a6d2f4b11',
    )
    for (const bad of [
      '',
      'abc',
      5,
      null,
      undefined,
      '0192f0c1-2f6b-7cc0-8d2e-5f0a6d2f4b1\0',
      'x'.repeat(9_999),
    ]) {
      const error = failure(() => requireUuid(bad, 'thread id'))
      expect(error).toMatchObject({ code: 'invalid_input', details: { field: 'thread id' } })
      expect(JSON.stringify(error.details).length).toBeLessThan(200)
    }
  })

  test('a scope needs a user that a text column can tell from every other', () => {
    expect(userOf({ userId: 'local' })).toBe('local')
    for (const userId of ['', 'a\0', 'x'.repeat(256), 5, null, undefined, 'a\ud800', '\udc00b']) {
      expect(failure(() => userOf({ userId } as never)).code, String(userId)).toBe('invalid_input')
    }
    expect(failure(() => userOf(undefined as never)).code).toBe('invalid_input')
  })
})
