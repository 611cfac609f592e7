import type { FastifyInstance, FastifyReply } from 'fastify'
import { Type } from 'typebox'
import { snakeKeys } from '../core/case.ts'
import { ThreadbaseError } from '../core/errors.ts'
import { closed } from '../core/fields.ts'
import { Instant, routeSchema } from '../core/http-shapes.ts'
import { actorOf, type IdentityService, normalizeLogin } from '../identity/service.ts'
import { type GdprService, idInName } from './service.ts'

const MAX_PASSWORD_CHARS = 1_024

const Confirmation = Type.Object(
  {
    confirm: Type.String({
      maxLength: 255,
      description: 'The user’s own id, or username: that nobody erases anything by mistake.',
    }),
    password: Type.Optional(
      Type.String({ maxLength: MAX_PASSWORD_CHARS, description: 'Of accounts that have one.' }),
    ),
  },
  closed,
)
type Confirmation = { confirm: string; password?: string }

const Erased = Type.Object({
  user_id: Type.String(),
  erased_at: Instant('From when on nothing was stored any more.'),
  finished_at: Instant('When nothing was left.'),
  rows: Type.Record(Type.String(), Type.Integer(), { description: 'How many rows were removed, by table.' }),
  blobs: Type.Integer({ description: 'How many stored bytes were removed: those that nobody else has.' }),
  blob_bytes: Type.Integer(),
  blobs_left: Type.Integer({
    description:
      'How many others stored again at the same moment: the next collection removes those that nobody names.',
  }),
})

const tags = ['session']

export type GdprRouteOptions = {
  identity: IdentityService
  /** Takes the cookies of a session away, which is gone. */
  clearCookies: (reply: FastifyReply) => void
}

/** `/api/users/me`: everything of the caller in one archive, and its erasure. */
export function gdprRoutes(
  app: FastifyInstance,
  gdpr: GdprService,
  { identity, clearCookies }: GdprRouteOptions,
): void {
  app.get(
    '/api/users/me/export',
    {
      config: { stream: true, untimed: 'transfer' },
      // it would read everything to send nothing
      exposeHeadRoute: false,
      schema: routeSchema({
        operationId: 'exportMe',
        access: 'account',
        tags,
        summary: 'Download everything that is stored of me, as one zip',
        description:
          'A stream without a length: it is whole when the connection ends it properly, and an error in the middle breaks the connection off. Secrets are masked.',
        response: {
          200: {
            description: 'The archive; README.txt in it says what is where.',
            content: { 'application/zip': { schema: Type.String({ format: 'binary' }) } },
          },
        },
      }),
    },
    async (request, reply) => {
      const { stream } = await gdpr.export(request.scope, actorOf(request))
      const name = `threadbase-${idInName(request.scope.userId)}-${new Date().toISOString().slice(0, 10)}.zip`
      return reply
        .type('application/zip')
        .header('content-disposition', `attachment; filename="${name}"`)
        .header('cache-control', 'no-store')
        .send(stream)
    },
  )

  app.delete<{ Body: Confirmation }>(
    '/api/users/me',
    {
      config: { untimed: 'work' },
      schema: routeSchema({
        operationId: 'eraseMe',
        access: 'account',
        tags,
        summary: 'Erase me: every row and every byte that is not somebody else’s too',
        description:
          'It cannot be taken back. From the first moment on the user’s credentials are refused and nothing of the user is stored any more. What was written down in the audit log stays. When it fails in the middle, an operator completes it with `threadbase gdpr erase`. A `conflict` for the last superuser.',
        body: Confirmation,
        response: { 200: Erased },
      }),
    },
    async (request, reply) => {
      const { userId } = request.scope
      const { confirm, password } = request.body
      const user = await identity.users.findOwn(userId)
      const names = [
        userId,
        ...(user?.username === undefined || user.username === null ? [] : [user.username]),
      ]
      if (!names.includes(confirm) && !names.includes(normalizeLogin(confirm)))
        throw new ThreadbaseError('invalid_input', 'confirm must be your user id or username', {
          field: 'confirm',
        })
      await requirePassword(userId, password, { address: request.ip, requestId: request.id })
      const options = { keepLastSuperuser: true }
      const { wasErased: _, ...report } = await gdpr.erase(request.scope, actorOf(request), options)
      clearCookies(reply)
      return snakeKeys(report)
    },
  )

  async function requirePassword(
    userId: string,
    password: string | undefined,
    origin: { address: string; requestId: string },
  ): Promise<void> {
    if (!(await identity.users.hasPassword(userId))) return
    if (password === undefined)
      throw new ThreadbaseError('invalid_input', 'the account has a password: send it along', {
        field: 'password',
      })
    // as for a change of password: guesses are counted together
    const attempt = `ID:${userId}`
    await identity.signIn.countAttempt(attempt, origin)
    if (!(await identity.users.checkPassword(userId, password)))
      throw new ThreadbaseError('unauthorized', 'the password is wrong')
    await identity.signIn.forgiveAttempt(attempt, origin)
  }
}
