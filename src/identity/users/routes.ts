import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import type { AuditService } from '../../audit/service.ts'
import { snakeKeys } from '../../core/case.ts'
import { closed, Nullable } from '../../core/fields.ts'
import { asHttp, fromHttp, Instant, PageOf, pageToHttp, routeSchema } from '../../core/http-shapes.ts'
import { actorOf } from '../actor.ts'
import { NewAccount, Password, UserPatch, UserQuery } from '../schema.ts'
import type { UserService } from './service.ts'

export const UserBody = Type.Object({
  id: Type.String(),
  provider: Type.Enum(['local', 'jwt', 'proxy'], { description: 'Who vouches for the user.' }),
  username: Nullable(Type.String()),
  email: Nullable(Type.String()),
  name: Nullable(Type.String()),
  profile_image: Nullable(Type.String()),
  is_active: Type.Boolean(),
  is_superuser: Type.Boolean(),
  created_at: Instant(),
  updated_at: Instant(),
  last_login_at: Nullable(Instant()),
})

const path = Type.Object({
  user: Type.String({ minLength: 1, maxLength: 255, description: 'Id of the user.' }),
})
const tags = ['admin']
const access = 'admin'
const one = { 200: UserBody }

type ByUser = { Params: { user: string } }

/** `/api/admin/users`: the users of this installation, for superusers. */
export function userRoutes(app: FastifyInstance, users: UserService, audit: AuditService): void {
  app.get(
    '/api/admin/users',
    {
      schema: routeSchema({
        operationId: 'listUsers',
        access,
        tags,
        summary: 'List users, newest first',
        querystring: asHttp(UserQuery),
        response: { 200: PageOf(UserBody) },
      }),
    },
    async (request) => {
      const actor = actorOf(request)
      await audit.record(actor, 'users_listed', actor.userId)
      return pageToHttp(await users.list(fromHttp<UserQuery>(request.query)))
    },
  )

  app.post(
    '/api/admin/users',
    {
      schema: routeSchema({
        operationId: 'createUser',
        access,
        tags,
        summary: 'Make an account',
        body: asHttp(NewAccount),
        response: { 201: UserBody },
      }),
    },
    async (request, reply) => {
      const user = await users.create(actorOf(request), fromHttp<NewAccount>(request.body))
      return reply.status(201).header('location', `/api/admin/users/${user.id}`).send(snakeKeys(user))
    },
  )

  app.get<ByUser>(
    '/api/admin/users/:user',
    {
      schema: routeSchema({
        operationId: 'getUser',
        access,
        tags,
        summary: 'Read a user',
        params: path,
        response: one,
      }),
    },
    async (request) => {
      await audit.record(actorOf(request), 'data_read', request.params.user, 'user')
      return snakeKeys(await users.getUser(request.params.user))
    },
  )

  app.patch<ByUser>(
    '/api/admin/users/:user',
    {
      schema: routeSchema({
        operationId: 'updateUser',
        access,
        tags,
        summary: 'Change a user: deactivate, promote, rename',
        description: 'All credentials of a deactivated user are refused within a second, on all servers.',
        params: path,
        body: asHttp(UserPatch),
        response: one,
      }),
    },
    async (request) => {
      const patch = fromHttp<UserPatch>(request.body)
      return snakeKeys(await users.update(actorOf(request), request.params.user, patch))
    },
  )

  app.post<ByUser & { Body: { password: string } }>(
    '/api/admin/users/:user/password',
    {
      schema: routeSchema({
        operationId: 'resetPassword',
        access,
        tags,
        summary: 'Set a password, which ends all sessions of the user',
        params: path,
        body: Type.Object({ password: Password }, closed),
        response: { 204: Type.Null() },
      }),
    },
    async (request, reply) => {
      await users.resetPassword(actorOf(request), request.params.user, request.body.password)
      return reply.status(204).send()
    },
  )
}
