import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import { snakeKeys } from '../../core/case.ts'
import { Nullable, Uuid } from '../../core/fields.ts'
import { asHttp, fromHttp, IdPath, Instant, PageOf, pageToHttp, routeSchema } from '../../core/http-shapes.ts'
import { actorOf } from '../../identity/service.ts'
import { NewVariable, VARIABLE_TYPES, VariablePatch, VariableQuery } from '../schema.ts'
import type { VariableService } from './service.ts'

const VariableBody = Type.Object({
  id: Uuid(),
  user_id: Type.String(),
  name: Type.String(),
  type: Type.Enum([...VARIABLE_TYPES]),
  value: Nullable(
    Type.String({ description: 'Of a `generic` one; null for a `credential`, and when it cannot be read.' }),
  ),
  mask: Nullable(
    Type.String({
      description:
        'The first 6 and the last 4 characters, `****` for a value under 16; null when it cannot be read.',
    }),
  ),
  is_readable: Type.Boolean({ description: 'False when its encryption key is missing or its row damaged.' }),
  key_id: Nullable(Type.String({ description: 'Id of the encryption key.' })),
  default_fields: Type.Array(Type.String()),
  created_at: Instant(),
  updated_at: Instant(),
})

const path = IdPath('Id of the variable.')
const tags = ['secrets']
// what superusers do not read of others
const config = { ofUser: false }

type ById = { Params: { id: string } }

/** `/api/variables`: the caller's own. No answer holds the value of a credential. */
export function variableRoutes(app: FastifyInstance, variables: VariableService): void {
  app.post(
    '/api/variables',
    {
      schema: routeSchema({
        operationId: 'createVariable',
        access: 'account',
        tags,
        summary: 'Make a variable',
        body: asHttp(NewVariable),
        response: { 201: VariableBody },
      }),
    },
    async (request, reply) => {
      const input = fromHttp<NewVariable>(request.body)
      const variable = await variables.create(request.scope, actorOf(request), input)
      return reply.status(201).header('location', `/api/variables/${variable.id}`).send(snakeKeys(variable))
    },
  )

  app.get(
    '/api/variables',
    {
      config,
      schema: routeSchema({
        operationId: 'listVariables',
        tags,
        summary: 'List variables by name',
        querystring: asHttp(VariableQuery),
        response: { 200: PageOf(VariableBody) },
      }),
    },
    async ({ scope, query }) => pageToHttp(await variables.list(scope, fromHttp<VariableQuery>(query))),
  )

  app.get<ById>(
    '/api/variables/:id',
    {
      config,
      schema: routeSchema({
        operationId: 'getVariable',
        tags,
        summary: 'Read a variable',
        params: path,
        response: { 200: VariableBody },
      }),
    },
    async ({ scope, params }) => snakeKeys(await variables.getVariable(scope, params.id)),
  )

  app.patch<ById>(
    '/api/variables/:id',
    {
      schema: routeSchema({
        operationId: 'updateVariable',
        access: 'account',
        tags,
        summary: 'Change a variable',
        params: path,
        body: asHttp(VariablePatch),
        response: { 200: VariableBody },
      }),
    },
    async (request) => {
      const patch = fromHttp<VariablePatch>(request.body)
      return snakeKeys(await variables.update(request.scope, actorOf(request), request.params.id, patch))
    },
  )

  app.delete<ById>(
    '/api/variables/:id',
    {
      schema: routeSchema({
        operationId: 'deleteVariable',
        access: 'account',
        tags,
        summary: 'Delete a variable',
        description: 'Answers 204 also when there is none.',
        params: path,
        response: { 204: Type.Null() },
      }),
    },
    async (request, reply) => {
      await variables.delete(request.scope, actorOf(request), request.params.id)
      return reply.status(204).send()
    },
  )
}
