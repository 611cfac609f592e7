import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { aggregateRankings, labelAt, parseRanking } from './ranking.ts'

const LABELS = ['Response A', 'Response B', 'Response C', 'Response D']
const parse = (text: string, labels = LABELS) => parseRanking(text, labels).map((label) => label.slice(9))

describe('labels', () => {
  test('go on with two letters after Z, and are never the same', () => {
    expect([0, 1, 25, 26, 27, 51, 52, 701, 702].map(labelAt)).toEqual(
      ['A', 'B', 'Z', 'AA', 'AB', 'AZ', 'BA', 'ZZ', 'AAA'].map((letters) => `Response ${letters}`),
    )
    expect(new Set(Array.from({ length: 1_000 }, (_, i) => labelAt(i))).size).toBe(1_000)
  })
})

describe('a ranking is read from free text', () => {
  test.each([
    [
      'as it was asked for',
      'A is best.\n\nFINAL RANKING:\n1. Response C\n2. Response A\n3. Response B',
      'C A B',
    ],
    ['with reasons behind', 'FINAL RANKING:\n1. Response B - beats Response A\n2. Response A', 'B A'],
    ['in bold print', '**FINAL RANKING:**\n\n1. **Response B**\n2. **Response D**', 'B D'],
    ['as a heading', '### Final Ranking\n\n1) Response D\n2) Response A', 'D A'],
    ['with bold numbers', '**Final ranking**:\n**1.** Response B\n**2.** Response **A**', 'B A'],
    ['in brackets and quotes', 'Final Ranking\n(1) "Response C"\n(2) [Response A]', 'C A'],
    ['with ordinals', 'FINAL RANKING:\n1st: Response A\n2nd: Response D', 'A D'],
    ['in upper case', 'FINAL RANKING:\n1. RESPONSE B\n2. RESPONSE A', 'B A'],
    ['in one line', 'FINAL RANKING: Response D > Response A > Response B', 'D A B'],
    ['without a heading', 'I prefer Response B. Response A is fine, too; Response B wins.', 'B A'],
    [
      'behind the last heading',
      'I will end with FINAL RANKING:\n1. Response A\nnow\nFINAL RANKING:\n1. Response B',
      'B',
    ],
    ['when nothing is behind the heading', 'Response C, then Response A. FINAL RANKING:', 'C A'],
    [
      'without duplicates and strangers',
      'FINAL RANKING:\n1. Response B\n2. Response B\n3. Response Z\n4. Response A',
      'B A',
    ],
    ['with Windows line breaks', 'FINAL RANKING:\r\n1. Response B\r\n2. Response A\r\n', 'B A'],
    ['but not from prose', 'a response A-level readers like; response a reader; Responses A', 'A'],
    ['and nothing from garbage', 'lorem ipsum 1. 2. 3. {"ranking": []}', ''],
    ['and nothing from nothing', '', ''],
  ])('%s', (_, text, expected) => {
    expect(parse(text).join(' ')).toBe(expected)
  })

  test('with many answers, labels of two letters are their own', () => {
    const labels = Array.from({ length: 30 }, (_, i) => labelAt(i))
    expect(parse('FINAL RANKING:\n1. Response AB\n2. Response A\n3. Response AA', labels)).toEqual([
      'AB',
      'A',
      'AA',
    ])
    expect(parse('FINAL RANKING:\n1. Response AB\n2. Response A')).toEqual(['A'])
  })

  test('any order that is written as asked is read as it is, whatever stands before', () => {
    const order = fc.integer({ min: 1, max: 40 }).chain((n) => {
      const labels = Array.from({ length: n }, (_, i) => labelAt(i))
      return fc.shuffledSubarray(labels, { minLength: 1 }).map((ranked) => ({ labels, ranked }))
    })
    fc.assert(
      fc.property(fc.string(), order, (before, { labels, ranked }) => {
        const lines = ranked.map((label, i) => `${i + 1}. ${label}`).join('\n')
        expect(parseRanking(`${before}\n\nFINAL RANKING:\n${lines}\n`, labels)).toEqual(ranked)
      }),
    )
  })

  test('any text gives known labels, each once, at once', () => {
    const piece = fc.oneof(
      fc.string({ unit: 'grapheme' }),
      fc.constantFrom('FINAL RANKING:', 'Response A', 'RESPONSE B', '\n1. ', '**', '\n', 'response c', '(('),
    )
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 60 }), (pieces) => {
        const found = parseRanking(pieces.join(''), LABELS)
        expect(new Set(found).size).toBe(found.length)
        for (const label of found) expect(LABELS).toContain(label)
      }),
    )
    const began = performance.now()
    for (const part of [
      'final ',
      'Response ',
      'Response **',
      '1. ',
      '\n1',
      '****',
      'final ranking Response A',
    ])
      parseRanking(part.repeat(200_000), LABELS)
    expect(performance.now() - began).toBeLessThan(3_000)
  })
})

describe('rankings are put together', () => {
  const models = { 'Response A': 'x', 'Response B': 'y', 'Response C': 'z' }
  const ranked = (...rankings: string[]) =>
    rankings.map((letters) => ({ parsed_ranking: [...letters].map((letter) => `Response ${letter}`) }))

  test('by the average place, best first', () => {
    expect(aggregateRankings(ranked('BAC', 'BCA', 'ABC'), models)).toEqual([
      { model: 'y', average_rank: 1.33, rankings_count: 3 },
      { model: 'x', average_rank: 2, rankings_count: 3 },
      { model: 'z', average_rank: 2.67, rankings_count: 3 },
    ])
  })

  test('without those that nobody ranked, and with those that some did', () => {
    expect(aggregateRankings(ranked('B', 'BA', ''), models)).toEqual([
      { model: 'y', average_rank: 1, rankings_count: 2 },
      { model: 'x', average_rank: 2, rankings_count: 1 },
    ])
    expect(aggregateRankings([], models)).toEqual([])
    expect(aggregateRankings(ranked('Q'), models)).toEqual([])
  })

  test('places are between the first and the last, in order, whatever was ranked', () => {
    const ranking = fc.shuffledSubarray(Object.keys(models)).map((parsed_ranking) => ({ parsed_ranking }))
    fc.assert(
      fc.property(fc.array(ranking, { maxLength: 30 }), (rankings) => {
        const all = aggregateRankings(rankings, models)
        for (const [i, { average_rank, rankings_count, model }] of all.entries()) {
          expect(average_rank).toBeGreaterThanOrEqual(all[i - 1]?.average_rank ?? 1)
          expect(average_rank).toBeLessThanOrEqual(3)
          const label = Object.entries(models).find(([, name]) => name === model)?.[0] as string
          expect(rankings_count).toBe(rankings.filter((one) => one.parsed_ranking.includes(label)).length)
        }
      }),
    )
  })
})
