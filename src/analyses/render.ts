import { isRawNumber, toStorableText } from '../core/json.ts'
import type { AnalysisContent } from './schema.ts'

/**
 * All that an analysis says as plain text, a line for each thing, for search. What sums it up comes first: models that
 * make embeddings read the beginning of a text only. Names of fields, kinds and times are left out, or a search for
 * "event" would find every analysis.
 */
export function renderAnalysis(analysis: AnalysisContent): string {
  const lines = [
    analysis.summary,
    analysis.problemBehavior,
    analysis.promptingEvent,
    ...analysis.vulnerabilities.map(textsOf),
    ...analysis.chainLinks.map(({ text, meta }) => [text, textsOf(meta)].filter(Boolean).join(' ')),
    analysis.consequences,
    ...analysis.solutions.map(textsOf),
  ]
  return toStorableText(lines.filter(Boolean).join('\n'))
}

/** The texts and numbers of a value, one after another; of an item its `text` comes first. */
function textsOf(value: unknown): string {
  if (typeof value === 'string') return value
  if (typeof value === 'number') return String(value)
  if (isRawNumber(value)) return value.rawJSON
  if (typeof value !== 'object' || value === null) return ''
  const { text, ...others } = value as { text?: unknown }
  const parts = Array.isArray(value) ? value : [text, ...Object.values(others)]
  return parts.map(textsOf).filter(Boolean).join(' ')
}
