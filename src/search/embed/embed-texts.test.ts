import { expect, test } from 'vitest'
import { embedWords } from '../../../test/embedders.ts'
import { embedTexts } from './embed-texts.ts'

const embedWith = async (answer: (text: string) => unknown, ...texts: string[]) => {
  const refused: number[] = []
  const embed = async (asked: readonly string[]) => asked.map(answer) as Float32Array[]
  return { vectors: await embedTexts({ embed }, texts, {}, (place) => refused.push(place)), refused }
}

test('lists of numbers are vectors, as the models of applications may give them', async () => {
  const { vectors } = await embedWith((text) => [...embedWords(text)], 'tea', ' ', 'coffee')
  expect(vectors).toEqual([embedWords('tea'), null, embedWords('coffee')])
})

test('a vector of zeros has no direction: its text counts as refused', async () => {
  expect(await embedWith((text) => embedWords(text), 'tea', '!?')).toEqual({
    vectors: [embedWords('tea'), null],
    refused: [1],
  })
})

test('what is no vector is an answer of a model that does not work', async () => {
  for (const answer of [undefined, null, 1, [1, 2], Array(384).fill('x'), Array(384).fill(1e300)])
    await expect(embedWith(() => answer, 'tea')).rejects.toMatchObject({ code: 'unavailable' })
})
