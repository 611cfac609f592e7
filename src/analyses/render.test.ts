import { expect, test } from 'vitest'
import { parseJson } from '../core/json.ts'
import { renderAnalysis } from './render.ts'
import type { AnalysisContent } from './schema.ts'

const EMPTY: AnalysisContent = {
  vulnerabilities: [],
  chainLinks: [],
  problemBehavior: null,
  promptingEvent: null,
  consequences: null,
  solutions: [],
  summary: null,
}

test('all texts are there, the summary first, kinds and times left out', () => {
  const text = renderAnalysis({
    vulnerabilities: ['slept badly', { area: 'food', text: 'skipped lunch', since: [1, { when: 'noon' }] }],
    chainLinks: [
      { kind: 'thought', text: 'nobody cares', at: '2026-01-31T12:00:00Z' },
      { kind: 'urge', text: 'to drink', meta: { strength: 8, note: 'sudden' } },
    ],
    problemBehavior: 'drank a bottle',
    promptingEvent: 'an unanswered message',
    consequences: 'missed work',
    solutions: [{ text: 'cold water', skill: 'TIPP', done: true, link: null }],
    summary: 'a hard evening',
  })
  expect(text.split('\n')).toEqual([
    'a hard evening',
    'drank a bottle',
    'an unanswered message',
    'slept badly',
    'skipped lunch food 1 noon',
    'nobody cares',
    'to drink 8 sudden',
    'missed work',
    'cold water TIPP',
  ])
})

test('nothing is the empty text; NUL, halves of surrogate pairs and long numbers are storable', () => {
  expect(renderAnalysis(EMPTY)).toBe('')
  const solutions = parseJson('[{"text":"a","n":9007199254740993}]') as AnalysisContent['solutions']
  expect(renderAnalysis({ ...EMPTY, summary: 'a\0b\ud800c', solutions })).toBe(
    'a\ufffdb\ufffdc\na 9007199254740993',
  )
})
