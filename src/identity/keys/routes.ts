import type { FastifyInstance, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import { snakeKeys } from '../../core/case.ts'
import { ThreadbaseError } from '../../core/errors.ts'
import { Nullable, Uuid } from '../../core/fields.ts'
import { asHttp, fromHttp, IdPath, Instant, PageOf, pageToHttp, routeSchema } from '../../core/http-shapes.ts'
import { actorOf } from '../actor.ts'
import { ApiKeyQuery, DEFAULT_SCOPES, type Identity, NewApiKey } from '../schema.ts'
import type { KeyService } from './service.ts'

const keyFields = {
  id: Uuid(),
  user_id: Type.String(),
  name: Type.String(),
  prefix: Type.String({ description: 'How the key begins.' }),
  scopes: Type.Array(Type.String()),
  created_at: Instant(),
  expires_at: Nullable(Instant()),
  revoked_at: Nullable(Instant()),
  last_used_at: Nullable(Instant('Some seconds behind.')),
  total_uses: Type.Integer({ description: 'Some seconds behind.' }),
}
const KeyBody = Type.Object(keyFields)
const NewKeyBody = Type.Object({
  ...keyFields,
  api_key: Type.String({ description: 'The key. It is shown this once.' }),
})

const tags = ['api keys']

type ById = { Params: { id: string } }

/** `/api/api-keys`: the caller's own keys. */
export function keyRoutes(app: FastifyInstance, keys: KeyService): void {
  app.post(
    '/api/api-keys',
    {
      schema: routeSchema({
        operationId: 'createApiKey',
        access: 'account',
        tags,
        summary: 'Make an API key, which is shown this once',
        description:
          'A key with the scope `admin` can make keys with no other scopes than its own, and that expire no later.',
        body: asHttp(NewApiKey),
        response: { 201: NewKeyBody },
      }),
    },
    async (request, reply) => {
      refuseSingleUser(request)
      const input = fromHttp<NewApiKey>(request.body)
      requireGrantable(request.identity, input)
      const { apiKey, key } = await keys.create(request.scope, actorOf(request), input)
      return reply
        .status(201)
        .header('cache-control', 'no-store')
        .send({ ...snakeKeys(apiKey), api_key: key })
    },
  )

  app.get(
    '/api/api-keys',
    {
      schema: routeSchema({
        operationId: 'listApiKeys',
        tags,
        summary: 'List API keys, newest first',
        querystring: asHttp(ApiKeyQuery),
        response: { 200: PageOf(KeyBody) },
      }),
    },
    async ({ scope, query }) => pageToHttp(await keys.list(scope, fromHttp<ApiKeyQuery>(query))),
  )

  app.get<ById>(
    '/api/api-keys/:id',
    {
      schema: routeSchema({
        operationId: 'getApiKey',
        tags,
        summary: 'Read what is kept of an API key',
        params: IdPath('Id of the API key.'),
        response: { 200: KeyBody },
      }),
    },
    async ({ scope, params }) => snakeKeys(await keys.getKey(scope, params.id)),
  )

  app.delete<ById>(
    '/api/api-keys/:id',
    {
      schema: routeSchema({
        operationId: 'revokeApiKey',
        access: 'account',
        tags,
        summary: 'Revoke an API key, on all servers within a second',
        description: 'Answers 204 also when there is none.',
        params: IdPath('Id of the API key.'),
        response: { 204: Type.Null() },
      }),
    },
    async (request, reply) => {
      await keys.revoke(request.scope, actorOf(request), request.params.id)
      return reply.status(204).send()
    },
  )
}

/** @throws forbidden when a key would make one that may do more, or for longer; for `ingest`, when a superuser does not ask */
function requireGrantable({ scopes: own, expiresAtMs, isSuperuser }: Identity, wanted: NewApiKey): void {
  if (wanted.scopes?.includes('ingest') === true && !isSuperuser)
    throw new ThreadbaseError(
      'forbidden',
      'keys with the scope ingest are made by superusers: they reach into the storage',
      {
        scopes: ['ingest'],
      },
    )
  if (own === undefined) return
  const extra = (wanted.scopes ?? DEFAULT_SCOPES).filter((scope) => !own.includes(scope))
  if (extra.length > 0)
    throw new ThreadbaseError('forbidden', `this API key lacks the scope ${extra.join(', ')} to give`, {
      scopes: extra,
    })
  if (expiresAtMs === undefined) return
  const until = wanted.expiresAt ? new Date(wanted.expiresAt).getTime() : Number.POSITIVE_INFINITY
  // of a time that cannot be read the service says what is wrong with it
  if (until > expiresAtMs)
    throw new ThreadbaseError('forbidden', 'this API key expires: one that it makes must not outlive it', {
      expiresAt: new Date(expiresAtMs).toISOString(),
    })
}

function refuseSingleUser({ identity }: FastifyRequest): void {
  if (identity.via === 'single-user')
    throw new ThreadbaseError('not_found', 'single-user mode has no API keys: nobody is asked for one')
}
