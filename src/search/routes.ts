import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import { snakeKeys } from '../core/case.ts'
import { Nullable, Uuid } from '../core/fields.ts'
import { asHttp, fromHttp, Instant, PageOf, routeSchema } from '../core/http-shapes.ts'
import { ROLES } from '../messages/schema.ts'
import { ThreadKind } from '../threads/schema.ts'
import { SEARCH_METHODS, SEARCH_MODES, type SearchHit, SearchQuery } from './schema.ts'
import type { SearchService } from './service.ts'

const HitBody = Type.Object({
  type: Type.Enum(['message', 'analysis']),
  score: Type.Number({ description: 'Higher is nearer. Comparable within one search only.' }),
  snippet: Type.String({
    description:
      'HTML: the text around what was found, escaped, with `<mark>` around the words of the query.',
  }),
  thread: Type.Object({
    id: Uuid(),
    title: Nullable(Type.String()),
    kind: ThreadKind,
    archived_at: Nullable(Instant()),
  }),
  message: Nullable(
    Type.Object({
      id: Uuid(),
      message_id: Nullable(Type.String()),
      seq: Type.Integer(),
      role: Type.Enum([...ROLES]),
      tool_name: Nullable(Type.String()),
      created_at: Instant(),
    }),
  ),
  analysis: Nullable(Type.Object({ version: Type.Integer(), updated_at: Instant() })),
})

const SearchBody = Type.Object({
  ...PageOf(HitBody).properties,
  mode: Type.Enum([...SEARCH_MODES], { description: 'How it was searched.' }),
  method: Nullable(
    Type.Enum([...SEARCH_METHODS], {
      description:
        'How the text was found: with all words, as a part of words, with any of the words, or spelt like it.',
    }),
  ),
  degraded: Nullable(
    Type.String({ description: 'Why it was not searched by meaning too; null when nothing is amiss.' }),
  ),
})

/** `/api/search`. */
export function searchRoutes(app: FastifyInstance, search: SearchService): void {
  app.get(
    '/api/search',
    {
      schema: routeSchema({
        operationId: 'searchMessages',
        tags: ['search'],
        summary: 'Search messages and results of sessions',
        description:
          'By words, by meaning, or by both. 400 for a query that is empty or too long, 503 for `mode=semantic` where nothing makes embeddings.',
        querystring: asHttp(SearchQuery),
        response: { 200: SearchBody },
      }),
    },
    async ({ scope, query }) => {
      const { items, nextCursor, ...how } = await search.messages(scope, fromHttp<SearchQuery>(query))
      return { items: items.map(hitToHttp), next_cursor: nextCursor ?? null, ...how }
    },
  )
}

function hitToHttp({ thread, message, analysis, ...hit }: SearchHit) {
  return {
    ...hit,
    thread: snakeKeys(thread),
    message: message && snakeKeys(message),
    analysis: analysis && snakeKeys(analysis),
  }
}
