import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { anyJson } from '../../test/arbitraries.ts'
import { bytesOf } from '../../test/transfer.ts'
import { type Piece, splitArray, splitLines } from './split.ts'

type Split = typeof splitLines

async function pieces(
  split: Split,
  data: string | Buffer,
  chunkSize = 7,
  maxBytes?: number,
): Promise<Piece[]> {
  const all: Piece[] = []
  for await (const piece of split(bytesOf(data, chunkSize), maxBytes)) all.push(piece)
  return all
}

const texts = (list: Piece[]) => list.map((piece) => ('text' in piece ? piece.text : `! ${piece.problem}`))

describe('lines', () => {
  test('are cut at line feeds, counted with the blank ones, which are left out', async () => {
    expect(await pieces(splitLines, '{"a":1}\r\n\n  \t\n{"b":"é😀"}\nlast')).toEqual([
      { n: 1, text: '{"a":1}\r' },
      { n: 4, text: '{"b":"é😀"}' },
      { n: 5, text: 'last' },
    ])
    expect(await pieces(splitLines, '')).toEqual([])
    expect(await pieces(splitLines, '\n\n')).toEqual([])
  })

  test('that are not UTF-8 or too long are reported, and the rest goes on', async () => {
    const data = Buffer.concat([Buffer.from([0x22, 0xff, 0x22, 0x0a]), Buffer.from(`${'x'.repeat(50)}\nok`)])
    expect(texts(await pieces(splitLines, data, 7, 49))).toEqual([
      '! it is not valid UTF-8',
      '! it is longer than 0 MiB',
      'ok',
    ])
  })
})

describe('array elements', () => {
  test('are found whatever they hold and however the bytes are cut', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(anyJson, { maxLength: 5 }),
        fc.constantFrom(undefined, 1, '\t'),
        fc.integer({ min: 1, max: 50 }),
        async (values, indent, chunkSize) => {
          const found = await pieces(splitArray, JSON.stringify(values, null, indent), chunkSize)
          expect(found.map((piece) => piece.n)).toEqual(values.map((_, i) => i + 1))
          expect(texts(found).map((text) => JSON.stringify(JSON.parse(text)))).toEqual(
            values.map((value) => JSON.stringify(JSON.parse(JSON.stringify(value)))),
          )
        },
      ),
      { numRuns: 300 },
    )
  })

  test('that are broken are handed out like the others', async () => {
    const found = await pieces(splitArray, ' [ {"a" 1} , {"b":"]\\"},["} }, 7, {"c":[1,2]} x, null , ]')
    expect(texts(found).map((text) => text.trim())).toEqual([
      '{"a" 1}',
      '{"b":"]\\"},["} }',
      '7',
      '{"c":[1,2]} x',
      'null',
    ])
  })

  test('a comma without an element, an end that is missing and text behind the end are reported', async () => {
    expect(texts(await pieces(splitArray, '[,1]'))).toEqual(['! there is nothing before the comma', '1'])
    expect(texts(await pieces(splitArray, '[1,{"a":'))).toEqual([
      '1',
      '! the file ends before the array does',
    ])
    expect(texts(await pieces(splitArray, '[1]\n'))).toEqual(['1'])
    expect(texts(await pieces(splitArray, '[] [2]'))).toEqual(['! there is text after the end of the array'])
  })

  test('what is no array is refused', async () => {
    for (const text of ['', '  \n', '{"a":1}', 'x'])
      await expect(pieces(splitArray, text), text).rejects.toThrow('not a JSON array')
  })
})
