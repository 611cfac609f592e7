import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { anyJson } from '../../test/arbitraries.ts'
import { threadIdOf } from './ids.ts'
import { fromMessage, fromThread, toMessage, toThread } from './mapping.ts'
import { renderConversation } from './render.ts'
import type { Conversation, CouncilMessage } from './schema.ts'

const createdAt = new Date('2026-01-31T12:00:00Z')
const thread = (meta: object, id: string = randomUUID()) => ({ id, title: 't', meta: { ...meta }, createdAt })

describe('what users wrote into meta', () => {
  const names = ['id', 'created_at', 'title', 'messages', 'absent', 'fields', 'as', 'role', 'is', 'content']
  const odd = fc.oneof(
    anyJson,
    fc.dictionary(
      fc.constantFrom(...names),
      fc.oneof(anyJson, fc.dictionary(fc.constantFrom(...names), anyJson)),
    ),
  )

  test('makes no conversation unreadable, whatever it is', () => {
    fc.assert(
      fc.property(odd, odd, anyJson, (ofThread, ofMessage, content) => {
        const row = thread({ council: ofThread })
        const head = fromThread(row)
        expect(head.id).toBe(row.id)
        const message = fromMessage({ role: 'user', content, meta: { council: ofMessage } })
        const conversation = { ...head, messages: [message] } as unknown as Conversation
        for (const format of ['json', 'markdown'] as const)
          expect(typeof renderConversation(conversation, format)).toBe('string')
      }),
    )
  })

  test.each([{ absent: 5 }, { fields: 'abc' }, { id: 5 }, { id: '../../x' }, 'x', null, []])(
    'that is no mark of ours is none: %j',
    (council) => {
      const row = thread({ council })
      expect(fromThread(row)).toEqual({ id: row.id, created_at: '2026-01-31T12:00:00.000+00:00', title: 't' })
    },
  )

  test('cannot give a conversation another id or other messages', () => {
    const fields = { id: 'x', title: 'y', created_at: 'z', messages: 5, color: 'red' }
    const row = thread({ council: { fields } })
    expect(fromThread(row)).toEqual({
      id: row.id,
      created_at: '2026-01-31T12:00:00.000+00:00',
      title: 't',
      color: 'red',
    })
  })

  test('a text is not taken for fields', () => {
    const row = {
      role: 'user',
      content: 'abc',
      meta: { council: { as: 'fields', fields: { content: 'x' } } },
    }
    expect(fromMessage(row)).toEqual({ role: 'user', content: 'abc' })
  })
})

test('a thread that has the meta of another is a conversation of its own', () => {
  const { meta } = toThread({ id: 'trip', created_at: createdAt.toISOString(), title: 't', messages: [] })
  expect(fromThread(thread(meta, threadIdOf('trip'))).id).toBe('trip')
  const fork = randomUUID()
  expect(fromThread(thread(meta, fork)).id).toBe(fork)
})

test('any message comes back as it was', () => {
  const role = fc.option(fc.constantFrom('user', 'assistant', 'x', 5, null), { nil: undefined })
  const stages = fc.dictionary(fc.constantFrom('stage1', 'stage3', 'content', 'metadata', 'more'), anyJson)
  fc.assert(
    fc.property(role, stages, (role, fields) => {
      const message = { ...(role === undefined ? {} : { role }), ...fields } as CouncilMessage
      const { role: stored, content, meta = {} } = toMessage(message)
      expect(fromMessage({ role: stored, content, meta })).toEqual(message)
    }),
  )
})
