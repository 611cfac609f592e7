import type { CouncilMetadata, Stage2 } from '../schema.ts'

export type AggregateRankings = NonNullable<CouncilMetadata['aggregate_rankings']>

/** `Response A` to `Response Z`, then `Response AA`, as columns of a table are named. */
export function labelAt(index: number): string {
  let letters = ''
  for (let n = index; n >= 0; n = Math.floor(n / 26) - 1)
    letters = String.fromCharCode(65 + (n % 26)) + letters
  return `Response ${letters}`
}

// the letters in upper case: prose has "a response a reader would like". Marks of Markdown may stand between.
const LABEL = /\b(?:[Rr]esponse|RESPONSE)[\s*_`"'([{:#-]{0,6}([A-Z]{1,3})(?![A-Za-z])/g
const HEADING = /final[\s*_]+ranking/gi
const NUMBERED = /^\W{0,8}\d{1,3}(?:st|nd|rd|th)?\W/

/**
 * The labels that a model ranked, best first, from free text: those of the numbered lines behind the last `FINAL RANKING`,
 * else all there, else all of the text, in the order in which they appear, each once. Empty when it names none.
 */
export function parseRanking(text: string, labels: Iterable<string>): string[] {
  const known = new Set(labels)
  const heading = [...text.matchAll(HEADING)].at(-1)
  const section = heading === undefined ? '' : text.slice(heading.index + heading[0].length)
  const numbered = section
    .split('\n')
    .filter((line) => NUMBERED.test(line))
    .flatMap((line) => findLabels(line, known).slice(0, 1))
  for (const found of [numbered, findLabels(section, known)]) if (found.length > 0) return [...new Set(found)]
  return [...new Set(findLabels(text, known))]
}

function findLabels(text: string, known: ReadonlySet<string>): string[] {
  return [...text.matchAll(LABEL)]
    .map(([, letters]) => `Response ${letters}`)
    .filter((label) => known.has(label))
}

/** The average place of each model that somebody ranked, best first; among equals who was ranked more often, then by name. */
export function aggregateRankings(
  rankings: Pick<Stage2[number], 'parsed_ranking'>[],
  labelToModel: Readonly<Record<string, string>>,
): AggregateRankings {
  const places = new Map<string, number[]>()
  for (const { parsed_ranking } of rankings) {
    for (const [i, label] of parsed_ranking.entries()) {
      const model = Object.hasOwn(labelToModel, label) ? labelToModel[label] : undefined
      if (model !== undefined) places.set(model, [...(places.get(model) ?? []), i + 1])
    }
  }
  return [...places]
    .map(([model, all]) => ({
      model,
      average_rank: Math.round((all.reduce((sum, place) => sum + place, 0) / all.length) * 100) / 100,
      rankings_count: all.length,
    }))
    .sort(
      (a, b) =>
        a.average_rank - b.average_rank ||
        b.rankings_count - a.rankings_count ||
        (a.model < b.model ? -1 : 1),
    )
}
