import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import { snakeKeys } from '../core/case.ts'
import { matchesTag } from '../core/entity-tags.ts'
import { ThreadbaseError } from '../core/errors.ts'
import { Nullable, Uuid, VERSION_NUMBER } from '../core/fields.ts'
import { asHttp, fromHttp, Instant, PageOf, pageToHttp, routeSchema } from '../core/http-shapes.ts'
import {
  type Analysis,
  AnalysisItem,
  AnalysisPatch,
  ChainLink,
  type IfVersion,
  NewAnalysis,
  VersionQuery,
} from './schema.ts'
import type { AnalysisService } from './service.ts'
import { sessionPath } from './sessions/routes.ts'

export { sessionListRoutes } from './sessions/routes.ts'

const Content = {
  vulnerabilities: Type.Array(AnalysisItem),
  chain_links: Type.Array(ChainLink),
  problem_behavior: Nullable(Type.String()),
  prompting_event: Nullable(Type.String()),
  consequences: Nullable(Type.String()),
  solutions: Type.Array(AnalysisItem),
  summary: Nullable(Type.String()),
}

const Version = Type.Integer({ description: 'Grows with each change, from 1; also the ETag.' })

const AnalysisBody = Type.Object({
  session_id: Uuid(),
  version: Version,
  ...Content,
  created_at: Instant(),
  updated_at: Instant('When this version was written.'),
})

const versionFacts = {
  version: Type.Integer(),
  written_at: Instant(),
  replaced_at: Nullable(Instant('Null for the version in force.')),
}

const VersionBody = Type.Object({
  session_id: Uuid(),
  ...versionFacts,
  analysis: Type.Object(Content, { description: 'As a PUT takes it.' }),
})

const VersionPath = Type.Object({
  ...sessionPath.properties,
  version: Type.String({ pattern: VERSION_NUMBER, description: 'Number of the version.' }),
})

const WriteHeaders = Type.Object({
  'if-match': Type.Optional(
    Type.String({
      description: 'The version that is meant, as its ETag has it: `"3"`. `*`: whatever is there.',
    }),
  ),
  'if-none-match': Type.Optional(Type.String({ description: '`*`: only if there is none.' })),
})

const ReadHeaders = Type.Object({
  'if-none-match': Type.Optional(Type.String({ description: 'Entity tags that the client has.' })),
})

const tags = ['sessions']
const written = { 200: AnalysisBody }
const CONDITIONS =
  'Over an analysis that is there, say which version you mean: `If-Match: "3"`, or `*` for whatever is there; without it, or with another version than there is, the answer is 409 and nothing is changed.'

type ById = { Params: { id: string } }

/** `/api/sessions/{id}/analysis` and its versions. */
export function analysisRoutes(app: FastifyInstance, analyses: AnalysisService): void {
  app.get<ById>(
    '/api/sessions/:id/analysis',
    {
      schema: routeSchema({
        operationId: 'getAnalysis',
        tags,
        summary: 'Read what a session came to',
        params: sessionPath,
        headers: ReadHeaders,
        response: { 200: AnalysisBody, 304: Type.Null({ description: 'The client has this version.' }) },
      }),
    },
    async (request, reply) => {
      const analysis = await analyses.getAnalysis(request.scope, request.params.id)
      const tag = tagOf(analysis)
      if (matchesTag(request.headers['if-none-match'], tag))
        return reply.header('etag', tag).status(304).send()
      return sendAnalysis(reply, analysis)
    },
  )

  app.put<ById>(
    '/api/sessions/:id/analysis',
    {
      schema: routeSchema({
        operationId: 'replaceAnalysis',
        tags,
        summary: 'Store what a session came to',
        description: `Makes the analysis (201), or its next version (200); what is left out is empty. ${CONDITIONS} \`If-None-Match: *\` only makes one where there is none. A PUT whose content is stored already changes nothing.`,
        params: sessionPath,
        headers: WriteHeaders,
        body: asHttp(NewAnalysis),
        response: { 201: AnalysisBody, ...written },
      }),
    },
    async (request, reply) => {
      const { scope, params, body } = request
      const options = { ifVersion: readIfVersion(request) }
      const { analysis, created } = await analyses.createOrReplace(
        scope,
        params.id,
        fromHttp<NewAnalysis>(body),
        options,
      )
      return sendAnalysis(reply.status(created ? 201 : 200), analysis)
    },
  )

  app.patch<ById>(
    '/api/sessions/:id/analysis',
    {
      schema: routeSchema({
        operationId: 'updateAnalysis',
        tags,
        summary: 'Change some of what a session came to',
        description: `What is left out stays; null empties a field; lists are replaced as a whole. ${CONDITIONS}`,
        params: sessionPath,
        headers: WriteHeaders,
        body: asHttp(AnalysisPatch),
        response: written,
      }),
    },
    async (request, reply) => {
      const options = { ifVersion: readIfVersion(request) }
      const patch = fromHttp<AnalysisPatch>(request.body)
      return sendAnalysis(reply, await analyses.patch(request.scope, request.params.id, patch, options))
    },
  )

  app.delete<ById>(
    '/api/sessions/:id/analysis',
    {
      schema: routeSchema({
        operationId: 'deleteAnalysis',
        tags,
        summary: 'Delete what a session came to, with its earlier versions',
        description:
          'Answers 204 also when there is none. With `If-Match` only the version that it names is deleted; 409 says that there is another one.',
        params: sessionPath,
        headers: WriteHeaders,
        response: { 204: Type.Null() },
      }),
    },
    async (request, reply) => {
      await analyses.delete(request.scope, request.params.id, { ifVersion: readIfVersion(request) })
      return reply.status(204).send()
    },
  )

  versionRoutes(app, analyses)
}

function versionRoutes(app: FastifyInstance, analyses: AnalysisService): void {
  app.get<ById>(
    '/api/sessions/:id/analysis/versions',
    {
      schema: routeSchema({
        operationId: 'listAnalysisVersions',
        tags,
        summary: 'List the versions of an analysis, newest first',
        description: 'The version in force is among them.',
        params: sessionPath,
        querystring: asHttp(VersionQuery),
        response: { 200: PageOf(Type.Object(versionFacts)) },
      }),
    },
    async ({ scope, params, query }) =>
      pageToHttp(await analyses.listVersions(scope, params.id, fromHttp<VersionQuery>(query))),
  )

  app.get<{ Params: { id: string; version: string } }>(
    '/api/sessions/:id/analysis/versions/:version',
    {
      schema: routeSchema({
        operationId: 'getAnalysisVersion',
        tags,
        summary: 'Read a version of an analysis',
        description: 'A PUT of its `analysis` restores it.',
        params: VersionPath,
        response: { 200: VersionBody },
      }),
    },
    async ({ scope, params }) => {
      const { analysis, ...facts } = await analyses.getVersion(scope, params.id, Number(params.version))
      return { ...snakeKeys(facts), analysis: snakeKeys(analysis) }
    },
  )
}

const tagOf = ({ version }: Analysis) => `"${version}"`

const sendAnalysis = (reply: FastifyReply, analysis: Analysis) =>
  reply.header('etag', tagOf(analysis)).send(snakeKeys(analysis))

// quotes may be forgotten; proxies that compress answers make our tags weak ones
const VERSION_TAG = /^(?:(?:W\/)?"(\d{1,9})"|(\d{1,9}))$/

/** @throws invalid_input for what is no version of ours */
function readIfVersion({ headers }: FastifyRequest): IfVersion | undefined {
  const { 'if-match': match, 'if-none-match': noneMatch } = headers
  if (match === undefined && noneMatch === undefined) return undefined
  if (match === undefined && noneMatch?.trim() === '*') return 'none'
  if (noneMatch !== undefined)
    throw new ThreadbaseError('invalid_input', 'a write takes either If-Match or If-None-Match: *')
  const [, quoted, bare] = VERSION_TAG.exec(match?.trim() ?? '') ?? []
  if (match?.trim() === '*') return '*'
  const version = quoted ?? bare
  if (version !== undefined) return Number(version)
  throw new ThreadbaseError('invalid_input', 'If-Match must be the ETag of a version, such as "3", or *')
}
