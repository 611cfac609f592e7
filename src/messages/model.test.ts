import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import type { NewMessage } from './schema.ts'

/** One random step. Places are taken modulo what there is. */
type Step =
  | { do: 'append'; messages: { key: number | null; parent: Parent; content: number }[] }
  | { do: 'delete'; place: number }
  | { do: 'fork'; at: number | null }
type Parent = { kind: 'auto' | 'root' | 'id' | 'key'; place: number }

const parent: fc.Arbitrary<Parent> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constantFrom('auto' as const, 'root' as const), place: fc.constant(0) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constantFrom('id' as const, 'key' as const), place: fc.nat(20) }),
  },
)
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('append' as const),
      // few keys and few contents, so that repetitions and conflicts happen
      messages: fc.array(fc.record({ key: fc.option(fc.nat(6)), parent, content: fc.nat(1) }), {
        minLength: 1,
        maxLength: 4,
      }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('delete' as const), place: fc.nat(20) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('fork' as const), at: fc.option(fc.nat(12)) }) },
)

type Row = { seq: number; key: string | null; content: number; parentSeq: number | null }

/** What a thread must hold, told in the simplest way. */
class Model {
  rows: Row[] = []
  lastSeq = 0

  /** The rows of the answer, or the code of the error; an error changes nothing. */
  append(
    messages: { key: string | null; content: number; parent: Row | 'auto' | 'root' | 'unknown' | string }[],
  ): Row[] | string {
    const rows = structuredClone(this.rows)
    let seq = this.lastSeq
    const answer: Row[] = []
    let noParent = false
    // a call is checked as it stands before the database is asked
    const contents = new Map<string, number>()
    for (const { key, content } of messages) {
      if (key === null) continue
      if ((contents.get(key) ?? content) !== content) return 'conflict'
      contents.set(key, content)
    }
    let failure: string | undefined
    for (const { key, content, parent } of messages) {
      const known = key === null ? undefined : rows.find((row) => row.key === key)
      if (known !== undefined) {
        if (known.content !== content) failure ??= 'conflict'
        answer.push(known)
        continue
      }
      let parentSeq: number | null = null
      if (parent === 'auto') parentSeq = rows.at(-1)?.seq ?? null
      else if (typeof parent === 'object') parentSeq = parent.seq
      else if (parent !== 'root') {
        const found = rows.find((row) => row.key === parent)
        if (found === undefined) noParent = true
        parentSeq = found?.seq ?? null
      }
      if (noParent) failure ??= 'invalid_input'
      const row = { seq: ++seq, key, content, parentSeq }
      rows.push(row)
      answer.push(row)
    }
    if (failure !== undefined) return failure
    this.rows = rows
    this.lastSeq = seq
    return answer
  }

  delete(row: Row): void {
    this.rows = this.rows.filter((other) => other !== row)
    for (const other of this.rows) if (other.parentSeq === row.seq) other.parentSeq = row.parentSeq
  }

  fork(at: number): Model {
    const fork = new Model()
    fork.rows = structuredClone(this.rows.filter(({ seq }) => seq <= at))
    fork.lastSeq = at
    return fork
  }

  path(row: Row): number[] {
    const up = this.rows.find(({ seq }) => seq === row.parentSeq)
    return [...(up === undefined ? [] : this.path(up)), row.seq]
  }
}

for (const engine of engines) {
  describe.skipIf(!engine.available)(`a thread and its model on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())
    const scope = { userId: 'model' }

    async function check(thread: string, model: Model): Promise<Map<number, string>> {
      const { items } = await opened.tb.messages.list(scope, thread, { limit: 200 })
      const seqOf = new Map(items.map(({ id, seq }) => [id, seq]))
      expect(
        items.map(({ seq, messageId, content, parentId }) => ({
          seq,
          key: messageId,
          content,
          parentSeq: parentId === null ? null : seqOf.get(parentId),
        })),
      ).toEqual(model.rows)
      expect((await opened.tb.threads.getThread(scope, thread)).lastSeq).toBe(model.lastSeq)
      return new Map(items.map(({ id, seq }) => [seq, id]))
    }

    test('agree after any operations', async () => {
      const property = fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 12 }), async (steps) => {
        let thread = (await opened.tb.threads.create(scope)).id
        let model = new Model()
        let idOf = new Map<number, string>()
        for (const now of steps) {
          const pick = (place: number) => model.rows[place % Math.max(1, model.rows.length)]
          if (now.do === 'append') {
            const input = now.messages.map(({ key, parent, content }) => {
              const messageId = key === null ? null : `k${key}`
              if (parent.kind === 'auto' || parent.kind === 'root')
                return { messageId, content, parent: parent.kind }
              if (parent.kind === 'key') return { messageId, content, parent: `k${parent.place % 7}` }
              return { messageId, content, parent: pick(parent.place) ?? 'unknown' }
            })
            const list = input.map(({ messageId, content, parent }): NewMessage => {
              const message: NewMessage = { role: 'user', messageId, content }
              if (parent === 'root') message.parentId = null
              else if (parent === 'unknown') message.parentId = randomUUID()
              else if (typeof parent === 'object') message.parentId = idOf.get(parent.seq)
              else if (parent !== 'auto') message.parentId = parent
              return message
            })
            const expected = model.append(
              input.map(({ messageId, ...rest }) => ({ key: messageId, ...rest })),
            )
            const actual = await opened.tb.messages.append(scope, thread, list).then(
              (stored) => stored.map(({ seq }) => seq),
              (error: { code?: string }) => error.code,
            )
            expect(actual).toEqual(typeof expected === 'string' ? expected : expected.map(({ seq }) => seq))
          } else if (now.do === 'delete') {
            const row = pick(now.place)
            if (row !== undefined) {
              expect(await opened.tb.messages.delete(scope, thread, idOf.get(row.seq) as string)).toBe(true)
              model.delete(row)
            }
          } else {
            const at = now.at === null ? model.lastSeq : now.at % (model.lastSeq + 1)
            thread = (await opened.tb.threads.fork(scope, thread, now.at === null ? {} : { at })).id
            model = model.fork(at)
          }
          idOf = await check(thread, model)
        }
        for (const row of model.rows) {
          const { items } = await opened.tb.messages.list(scope, thread, {
            leaf: idOf.get(row.seq),
            limit: 200,
          })
          expect(items.map(({ seq }) => seq)).toEqual(model.path(row))
        }
      })
      await fc.assert(property, { numRuns: 60 })
    })
  })
}
