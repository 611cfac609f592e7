import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import { snakeKeys } from '../../core/case.ts'
import { Nullable } from '../../core/fields.ts'
import { asHttp, fromHttp, Instant, PageOf, pageToHttp, routeSchema } from '../../core/http-shapes.ts'
import { actorOf } from '../../identity/service.ts'
import { NewProviderKey, Provider } from '../schema.ts'
import type { ProviderKeyService } from './service.ts'

const KeyBody = Type.Object({
  user_id: Type.String(),
  provider: Type.String(),
  mask: Nullable(
    Type.String({
      description:
        'The first 6 and the last 4 characters, `****` for a key under 16; null when it cannot be read.',
    }),
  ),
  is_readable: Type.Boolean({ description: 'False when its encryption key is missing or its row damaged.' }),
  key_id: Nullable(Type.String({ description: 'Id of the encryption key.' })),
  created_at: Instant(),
  updated_at: Instant('When the key was set last.'),
})

const path = Type.Object({ provider: Provider })
const tags = ['secrets']
// what superusers do not read of others
const config = { ofUser: false }

type ByProvider = { Params: { provider: string } }

/** `/api/users/me/api-keys`: the caller's own keys for the providers of models. No answer holds one. */
export function providerKeyRoutes(app: FastifyInstance, keys: ProviderKeyService): void {
  app.get(
    '/api/users/me/api-keys',
    {
      config,
      schema: routeSchema({
        operationId: 'listProviderKeys',
        tags,
        summary: 'List the providers with a key, and the mask of each',
        response: { 200: PageOf(KeyBody) },
      }),
    },
    async ({ scope }) => pageToHttp(await keys.list(scope)),
  )

  app.get<ByProvider>(
    '/api/users/me/api-keys/:provider',
    {
      config,
      schema: routeSchema({
        operationId: 'getProviderKey',
        tags,
        summary: "Read the mask of a provider's key",
        params: path,
        response: { 200: KeyBody },
      }),
    },
    async ({ scope, params }) => snakeKeys(await keys.getKey(scope, params.provider)),
  )

  app.put<ByProvider>(
    '/api/users/me/api-keys/:provider',
    {
      schema: routeSchema({
        operationId: 'putProviderKey',
        access: 'account',
        tags,
        summary: 'Store the key for a provider, encrypted',
        description: 'Answers 201 for the first key of the provider, 200 when it takes the place of another.',
        params: path,
        body: asHttp(NewProviderKey),
        response: { 200: KeyBody, 201: KeyBody },
      }),
    },
    async (request, reply) => {
      const { scope, params, body } = request
      const input = fromHttp<NewProviderKey>(body)
      const { apiKey, created } = await keys.put(scope, actorOf(request), params.provider, input)
      return reply.status(created ? 201 : 200).send(snakeKeys(apiKey))
    },
  )

  app.delete<ByProvider>(
    '/api/users/me/api-keys/:provider',
    {
      schema: routeSchema({
        operationId: 'deleteProviderKey',
        access: 'account',
        tags,
        summary: 'Delete the key for a provider',
        description: 'Answers 204 also when there is none.',
        params: path,
        response: { 204: Type.Null() },
      }),
    },
    async (request, reply) => {
      await keys.delete(request.scope, actorOf(request), request.params.provider)
      return reply.status(204).send()
    },
  )
}
