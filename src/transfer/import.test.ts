import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { anyJson, anyJsonObject, anyText } from '../../test/arbitraries.ts'
import { engines, type TestDatabase } from '../../test/harness.ts'
import {
  bytesOf,
  canonicalLines,
  exportAll,
  importText,
  readSample,
  SAMPLE_LINES,
  toLines,
} from '../../test/transfer.ts'
import type { Threadbase } from '../threadbase.ts'
import { threadIdOf } from './ids.ts'
import type { ImportReport } from './schema.ts'

const counts = ({ imported, known, extended, refused, messages }: ImportReport) => ({
  imported,
  known,
  extended,
  refused,
  messages,
})
const user = (content: unknown) => ({ role: 'user', content })
const said = (n: number, from = 0) => Array.from({ length: n }, (_, i) => user(`m${from + i}`))

/** A line with anything in it that JSON can hold. */
const anyMessage = fc
  .tuple(
    fc.constantFrom('user', 'assistant', 'system', 'tool', 'developer', 'function'),
    fc.dictionary(fc.constantFrom('content', 'tool_calls', 'tool_call_id', 'name', 'weight'), anyJson),
    anyJsonObject,
  )
  .map(([role, fields, others]) => ({ ...others, ...fields, role }))
const anyLine = fc
  .tuple(fc.array(anyMessage, { maxLength: 5 }), fc.option(fc.oneof(anyText, anyJson)), anyJsonObject)
  .map(([messages, title, others]) => {
    const { id: _, ...fields } = others
    return { ...fields, ...(title === null ? {} : { title }), messages }
  })

let users = 0
const newUser = () => `importer ${++users}`

for (const engine of engines) {
  describe.skipIf(!engine.available)(`import on ${engine.name}`, () => {
    let store: TestDatabase
    let tb: Threadbase
    beforeAll(async () => {
      store = await engine.open()
      tb = store.tb
    })
    afterAll(() => store?.close())

    const messagesOf = async (userId: string, id: string) =>
      (await tb.messages.list({ userId }, threadIdOf(id), { limit: 200 })).items

    test('the sample comes back as equal JSON, in its order, and a second import changes nothing', async () => {
      const userId = newUser()
      const sample = readSample(SAMPLE_LINES)
      expect(counts(await importText(tb, userId, sample))).toMatchObject({
        imported: 12,
        refused: 0,
        messages: 34,
      })
      const exported = await exportAll(tb, userId)
      expect(canonicalLines(exported)).toEqual(canonicalLines(sample))
      const before = await tb.threads.list({ userId }, { limit: 100 })
      const again = await importText(tb, userId, sample)
      expect(counts(again)).toEqual({ imported: 0, known: 12, extended: 0, refused: 0, messages: 0 })
      expect(await tb.threads.list({ userId }, { limit: 100 })).toEqual(before)
      expect(await exportAll(tb, userId)).toBe(exported)
      // and what was exported is known, too, and goes as it is into another place
      expect(counts(await importText(tb, userId, exported))).toMatchObject({ known: 12 })
      const other = newUser()
      expect(counts(await importText(tb, other, exported))).toMatchObject({ imported: 12 })
      expect(canonicalLines(await exportAll(tb, other))).toEqual(canonicalLines(sample))
    })

    test('any line comes back as equal JSON', async () => {
      const userId = newUser()
      const lines = fc.sample(anyLine, { numRuns: 300, seed: 7 })
      const text = toLines(...lines)
      const report = await importText(tb, userId, text)
      expect(report.refusals).toEqual([])
      expect(report.imported).toBe(300)
      expect(canonicalLines(await exportAll(tb, userId))).toEqual(canonicalLines(text))
      expect(counts(await importText(tb, userId, text))).toMatchObject({ known: 300, refused: 0 })
    })

    test('broken lines are reported with their number and reason, and the rest goes on', async () => {
      const userId = newUser()
      const refused: number[] = []
      const deep = `${'['.repeat(600)}${']'.repeat(600)}`
      const text = [
        '\ufeff{"id":"first","messages":[]}\r',
        '{"id":"cut","messages":[{"role"',
        '',
        '[]',
        '{"id":"bot","messages":[{"role":"bot"}]}',
        `{"id":"deep","messages":[{"role":"user","content":${deep}}]}`,
        `{"id":"deep2","x":${deep},"messages":[{"role":"user","content":""}]}`,
        `{"id":"deep3","messages":[{"role":"user","content":${'['.repeat(100_000)}${']'.repeat(100_000)}}]}`,
        '{"id":"last","messages":[{"role":"user","content":"x"}]}',
      ].join('\n')
      const report = await importText(tb, userId, text, { onRefused: ({ n }) => refused.push(n) })
      expect(counts(report)).toEqual({ imported: 2, known: 0, extended: 0, refused: 6, messages: 1 })
      expect(report.refusals).toEqual([
        { n: 2, reason: expect.stringContaining('not valid JSON') },
        { n: 4, reason: 'the line is not a JSON object' },
        { n: 5, reason: 'message 0 has the role "bot"' },
        { n: 6, reason: expect.stringContaining('nested deeper') },
        { n: 7, reason: expect.stringContaining('nested deeper') },
        { n: 8, reason: expect.stringContaining('nested') },
      ])
      expect(refused.sort()).toEqual([2, 4, 5, 6, 7, 8])
      // nothing is left of them
      const { items } = await tb.threads.list({ userId })
      expect(items.map(({ id }) => id).sort()).toEqual([threadIdOf('first'), threadIdOf('last')].sort())
    })

    test('a line that has grown gets its new messages and fields', async () => {
      const userId = newUser()
      await importText(tb, userId, toLines({ id: 'g', title: 'Old', seen: 1, messages: said(2) }))
      const grown = toLines({ id: 'g', title: 'New', seen: 2, messages: said(5) })
      expect(counts(await importText(tb, userId, grown))).toMatchObject({ extended: 1, messages: 3 })
      expect(canonicalLines(await exportAll(tb, userId))).toEqual(canonicalLines(grown))
      expect((await tb.threads.getThread({ userId }, threadIdOf('g'))).title).toBe('New')
      expect(counts(await importText(tb, userId, grown))).toMatchObject({ known: 1, messages: 0 })
      // the older state is a beginning of what is there
      const older = toLines({ id: 'g', title: 'Old', seen: 1, messages: said(2) })
      expect(counts(await importText(tb, userId, older))).toMatchObject({ known: 1, messages: 0 })
      expect(canonicalLines(await exportAll(tb, userId))).toEqual(canonicalLines(grown))
    })

    test('a line that differs is refused and says where', async () => {
      const userId = newUser()
      const line = {
        id: 'd',
        title: 'T',
        messages: [...said(3), { role: 'tool', content: 'r', tool_call_id: 'a' }],
      }
      await importText(tb, userId, toLines(line))
      const { messages } = line
      const report = await importText(
        tb,
        userId,
        toLines(
          { ...line, messages: [...messages.slice(0, 2), user('other'), messages[3]] },
          {
            ...line,
            messages: [
              ...messages.slice(0, 3),
              { role: 'tool', content: 'r', tool_call_id: 'b' },
              user('more'),
            ],
          },
          { ...line, title: 'Another' },
          { id: 'd', messages },
        ),
      )
      expect(report.refusals).toEqual([
        { n: 1, reason: 'message 2 differs from the one that was imported before' },
        { n: 2, reason: 'message 3 differs from the one that was imported before' },
        { n: 3, reason: 'it was imported before with the same messages and other fields (title)' },
        { n: 4, reason: 'it was imported before with the same messages and other fields (title)' },
      ])
      expect(canonicalLines(await exportAll(tb, userId))).toEqual(canonicalLines(toLines(line)))
    })

    test('a second line for the same conversation in one file is compared with the first', async () => {
      const text = toLines(
        { id: 'same', messages: said(2) },
        { id: 'same', messages: said(2) },
        { id: 'same', messages: said(4) },
        { id: 'same', messages: [user('different')] },
      )
      const expected = { imported: 1, known: 1, extended: 1, refused: 1, messages: 4 }
      const userId = newUser()
      expect(counts(await importText(tb, userId, text, { dryRun: true }))).toEqual(expected)
      expect(counts(await importText(tb, userId, text))).toEqual(expected)
      // the two that were taken in the first run are beginnings of what is there now
      expect(counts(await importText(tb, userId, text))).toEqual({
        ...expected,
        imported: 0,
        known: 3,
        extended: 0,
        messages: 0,
      })
    })

    test('a dry run says what would happen and writes nothing', async () => {
      const userId = newUser()
      await importText(tb, userId, toLines({ id: 'a', messages: said(1) }, { id: 'b', messages: said(2) }))
      const before = await exportAll(tb, userId)
      const text = toLines(
        { id: 'a', messages: said(1) },
        { id: 'b', messages: said(4) },
        { id: 'c', messages: said(3) },
        {},
      )
      const report = await importText(tb, userId, text, { dryRun: true })
      expect(counts(report)).toEqual({ imported: 1, known: 1, extended: 1, refused: 1, messages: 5 })
      expect(await exportAll(tb, userId)).toBe(before)
      expect(counts(await importText(tb, userId, text))).toEqual(counts(report))
    })

    test('a conversation of 2,500 messages is stored whole and in order; cut off in the middle it completes', async () => {
      const userId = newUser()
      const text = toLines({ id: 'long', messages: said(2_500) })
      expect(counts(await importText(tb, userId, text))).toMatchObject({ imported: 1, messages: 2_500 })
      expect(canonicalLines(await exportAll(tb, userId))).toEqual(canonicalLines(text))
      // as after a kill behind the first statement, and behind the making of the thread
      const cut = newUser()
      await importText(tb, cut, toLines({ id: 'long', messages: said(1_000) }))
      await tb.threads.update({ userId: cut }, threadIdOf('long'), {
        meta: { import: { format: 'jsonl', line: { id: 'long' } } },
      })
      expect(counts(await importText(tb, cut, text))).toMatchObject({ extended: 1, messages: 1_500 })
      expect(canonicalLines(await exportAll(tb, cut))).toEqual(canonicalLines(text))
      const empty = newUser()
      await tb.threads.create(
        { userId: empty },
        { id: threadIdOf('long'), meta: { import: { format: 'jsonl', line: { id: 'long' } } } },
      )
      expect(counts(await importText(tb, empty, text))).toMatchObject({ imported: 1, messages: 2_500 })
    })

    test('gzip, in parts too, and what is damaged in it', async () => {
      const userId = newUser()
      const lines = Array.from({ length: 400 }, (_, i) =>
        toLines({ id: `z${i}`, messages: [user(`${Math.random()}`)] }),
      )
      const packed = Buffer.concat([
        gzipSync(lines.slice(0, 300).join('')),
        gzipSync(lines.slice(300).join('')),
      ])
      const cut = await importText(tb, userId, packed.subarray(0, packed.length - 200))
      expect(cut.refused).toBe(1)
      expect(cut.refusals[0]?.reason).toContain('the compressed file is damaged here')
      expect(cut.imported).toBeGreaterThanOrEqual(300)
      const whole = await importText(tb, userId, packed)
      expect([whole.imported + whole.known, whole.refused]).toEqual([400, 0])
      expect(whole.bytes).toBe(packed.length)
    })

    test('what is no such file at all is refused as a whole', async () => {
      const userId = newUser()
      const zip = Buffer.from('504b0304140000000800', 'hex')
      await expect(importText(tb, userId, zip)).rejects.toMatchObject({
        code: 'unsupported',
        message: expect.stringContaining('unzip it and import the conversations.json'),
      })
      await expect(importText(tb, userId, gzipSync(zip))).rejects.toMatchObject({ code: 'unsupported' })
      await expect(importText(tb, userId, Buffer.from('\ufeff{}', 'utf16le'))).rejects.toThrow('UTF-16')
      await expect(importText(tb, userId, '{}', { format: 'chatgpt' })).rejects.toThrow('not a JSON array')
      await expect(importText(tb, userId, '{}', { format: 'xml' as never })).rejects.toMatchObject({
        code: 'invalid_input',
      })
      expect(counts(await importText(tb, userId, ''))).toEqual({
        imported: 0,
        known: 0,
        extended: 0,
        refused: 0,
        messages: 0,
      })
      await expect(importText(tb, '', '')).rejects.toMatchObject({ code: 'invalid_input' })
    })

    test('an error of the source ends the import, with what was read before it stored', async () => {
      const userId = newUser()
      async function* broken() {
        yield* bytesOf(toLines({ id: 'kept', messages: said(1) }))
        throw new Error('the disk is gone')
      }
      await expect(tb.transfer.import({ userId }, broken())).rejects.toThrow('the disk is gone')
      expect(await messagesOf(userId, 'kept')).toHaveLength(1)
    })

    test('a signal stops the reading; what was stored is complete', async () => {
      const userId = newUser()
      const lines = Array.from({ length: 5_000 }, (_, i) => ({ id: `s${i}`, messages: said(3, i) }))
      const controller = new AbortController()
      const report = await importText(tb, userId, toLines(...lines), {
        signal: controller.signal,
        onProgress: () => controller.abort(),
      })
      expect(report.imported).toBeGreaterThan(0)
      expect(report.imported).toBeLessThan(5_000)
      expect(report.messages).toBe(3 * report.imported)
    })
  })
}
