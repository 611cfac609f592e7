import { isThreadbaseError } from '../../core/errors.ts'
import type { Matcher } from '../matches.ts'
import type { ConversationHit } from '../schema.ts'
import type { ConversationFiles } from './files.ts'
import type { Listed } from './lists.ts'
import { spotIn } from './places.ts'

/** Reads file after file, so that one conversation at a time is in memory, until there are enough hits. */
export async function searchFiles(
  files: ConversationFiles,
  userId: string,
  listed: readonly Listed[],
  match: Matcher,
  limit: number,
): Promise<ConversationHit[]> {
  const hits: ConversationHit[] = []
  for (const { summary, place } of listed) {
    const read = await files.read(spotIn(place, summary.id), userId, summary.id).catch((error) => {
      // broken since it was listed
      if (isThreadbaseError(error, 'invalid_input')) return undefined
      throw error
    })
    const { title, messages } = read?.value ?? { title: null, messages: [] }
    const matches = match(title, messages.entries())
    if (matches.length > 0) hits.push({ ...summary, matches })
    if (hits.length === limit) break
  }
  return hits
}
