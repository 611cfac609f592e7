import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import { snakeCase, snakeKeys } from '../core/case.ts'
import { JsonObject, Nullable } from '../core/fields.ts'
import { asHttp, fromHttp, IdPath, routeSchema } from '../core/http-shapes.ts'
import { CONFIG_FIELDS, type Config, ConfigPatch, NewConfig } from './schema.ts'
import type { ConfigService } from './service.ts'

const Source = Type.Enum(['thread', 'default', 'unset'])

const ConfigBody = Type.Object({
  model: Nullable(Type.String()),
  temperature: Nullable(Type.Number()),
  system_prompt: Nullable(Type.String()),
  context_window: Nullable(Type.Integer()),
  settings: JsonObject(),
  sources: Type.Object(Object.fromEntries(CONFIG_FIELDS.map((field) => [snakeCase(field), Source])), {
    description: 'For each value: set on the thread, a default of this installation, or set nowhere (null).',
  }),
})

const path = IdPath('Id of the thread.')
const tags = ['config']
const response = { 200: ConfigBody }

type ById = { Params: { id: string } }

const toHttp = (config: Config) => ({ ...snakeKeys(config), sources: snakeKeys(config.sources) })

/** `/api/threads/{id}/config` and the defaults below it. */
export function configRoutes(app: FastifyInstance, configs: ConfigService): void {
  app.get(
    '/api/config/defaults',
    {
      config: { ofUser: false },
      schema: routeSchema({
        operationId: 'getConfigDefaults',
        tags,
        summary: 'What a thread gets that sets nothing',
        response,
      }),
    },
    () => toHttp(configs.defaults()),
  )

  app.get<ById>(
    '/api/threads/:id/config',
    {
      schema: routeSchema({
        operationId: 'getConfig',
        tags,
        summary: 'Read the configuration in force',
        params: path,
        response,
      }),
    },
    async ({ scope, params }) => toHttp(await configs.get(scope, params.id)),
  )

  app.put<ById>(
    '/api/threads/:id/config',
    {
      schema: routeSchema({
        operationId: 'replaceConfig',
        tags,
        summary: "Replace the thread's configuration",
        description: 'What is left out falls back to its default.',
        params: path,
        body: asHttp(NewConfig),
        response,
      }),
    },
    async ({ scope, params, body }) => toHttp(await configs.put(scope, params.id, fromHttp<NewConfig>(body))),
  )

  app.patch<ById>(
    '/api/threads/:id/config',
    {
      schema: routeSchema({
        operationId: 'updateConfig',
        tags,
        summary: 'Change some of the configuration',
        description: 'What is left out stays; null falls back to the default.',
        params: path,
        body: asHttp(ConfigPatch),
        response,
      }),
    },
    async ({ scope, params, body }) =>
      toHttp(await configs.patch(scope, params.id, fromHttp<ConfigPatch>(body))),
  )
}
