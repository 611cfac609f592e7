import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import { snakeKeys } from '../core/case.ts'
import { ThreadbaseError } from '../core/errors.ts'
import { closed } from '../core/fields.ts'
import { asHttp, fromHttp, routeSchema } from '../core/http-shapes.ts'
import { MAX_PASSWORD, NewUser, Password, ProfilePatch, type Tokens, type User } from '../identity/schema.ts'
import { type AuthMode, actorOf, type IdentityService, normalizeLogin } from '../identity/service.ts'
import { UserBody } from '../identity/users/routes.ts'
import { clearTokenCookies, readCredential, readRefreshCookie, setTokenCookies } from './credentials.ts'
import { changesSomething, isFromBrowser, refuseForeignOrigin, requireCsrfToken } from './csrf.ts'

export type SessionRouteOptions = {
  mode: AuthMode
  identity: IdentityService
  origins: ReadonlySet<string>
  /** Whether anybody may make an account. */
  registration: boolean
}

const Cookies = Type.Optional(
  Type.Boolean({
    description:
      'Whether cookies carry the tokens, which then are not in the answer. Default: true for browsers, false for other programs.',
  }),
)
const Login = Type.Object(
  {
    username: Type.String({ maxLength: 255, description: 'Username or email.' }),
    password: Type.String({ maxLength: MAX_PASSWORD }),
    cookies: Cookies,
    // what OAuth clients send along with the password grant; nothing comes of it
    grant_type: Type.Optional(Type.String({ pattern: '^(password)?$' })),
    scope: Type.Optional(Type.String({ maxLength: 1_000 })),
    client_id: Type.Optional(Type.String({ maxLength: 1_000 })),
    client_secret: Type.Optional(Type.String({ maxLength: 1_000 })),
  },
  closed,
)
type Login = { username: string; password: string; cookies?: boolean }

const RefreshToken = Type.Optional(
  Type.String({ maxLength: 4_096, description: 'Default: the one of the cookie.' }),
)
const Refresh = Type.Object({ refresh_token: RefreshToken }, closed)
const Logout = Type.Object(
  {
    refresh_token: RefreshToken,
    all: Type.Optional(Type.Boolean({ default: false, description: 'End all sign-ins of the user.' })),
  },
  closed,
)
const NewPassword = Type.Object(
  { current_password: Type.String({ maxLength: MAX_PASSWORD }), new_password: Password },
  closed,
)

const TokenBody = Type.Object({
  user_id: Type.String(),
  token_type: Type.Literal('bearer'),
  access_token: Type.Optional(
    Type.String({ description: 'A JWT. Not there when cookies carry the tokens.' }),
  ),
  expires_in: Type.Integer({ description: 'Seconds that the access token is good for.' }),
  refresh_token: Type.Optional(Type.String({ description: 'Good once.' })),
  refresh_expires_in: Type.Integer(),
  csrf_token: Type.Optional(
    Type.String({ description: 'To be sent with changes in x-csrf-token when cookies carry the tokens.' }),
  ),
})

const Me = Type.Object({
  user_id: Type.String(),
  via: Type.Enum(['single-user', 'session', 'key', 'token', 'proxy'], {
    description: 'How the user is known.',
  }),
  is_superuser: Type.Boolean(),
  scopes: Type.Optional(Type.Array(Type.String(), { description: 'Of the API key that was sent.' })),
  csrf_token: Type.Optional(Type.String()),
  user: Type.Union([UserBody, Type.Null()], {
    description: 'The account; null in single-user mode, which has none.',
  }),
})

const tags = ['session']

/** Signing in and out, and the caller's own account. */
export function sessionRoutes(app: FastifyInstance, options: SessionRouteOptions): void {
  const { identity, mode, origins } = options
  const { sessions, signIn, users } = identity
  const requireAccounts = () => {
    if (mode !== 'accounts')
      throw new ThreadbaseError('not_found', `there are no accounts here: AUTH_MODE is ${mode}`)
  }
  const originOf = ({ ip, id }: FastifyRequest) => ({ address: ip, requestId: id })
  /** What is not protected by a credential must not be triggered by a page of another site either. */
  const begin = (request: FastifyRequest) => {
    requireAccounts()
    refuseForeignOrigin(request, origins)
  }

  // forms here only: any page can make a browser send one
  app.register(async (login) => {
    login.addContentTypeParser(
      'application/x-www-form-urlencoded',
      { parseAs: 'string' },
      (_request, body, done) => done(null, readForm(String(body))),
    )
    loginRoute(login)
  })

  const loginRoute = (child: FastifyInstance) =>
    child.post<{ Body: Login }>(
      '/api/login',
      {
        schema: routeSchema({
          operationId: 'logIn',
          access: 'public',
          tags,
          summary: 'Sign in with username or email, and password',
          description:
            'JSON or a form. Browsers get cookies that no script can read, other programs the tokens.',
          body: Login,
          response: { 200: TokenBody },
        }),
      },
      async (request, reply) => {
        begin(request)
        const { username, password, cookies } = request.body
        const { tokens } = await signIn.signIn({ login: username, password }, originOf(request))
        return sendTokens(request, reply, tokens, cookies ?? isFromBrowser(request))
      },
    )

  app.post<{ Body: { refresh_token?: string } }>(
    '/api/refresh',
    {
      schema: routeSchema({
        operationId: 'refreshSession',
        access: 'public',
        tags,
        summary: 'Get new tokens for a refresh token',
        description: 'The refresh token is used up. One that was used before ends its session.',
        body: Refresh,
        response: { 200: TokenBody },
      }),
    },
    async (request, reply) => {
      begin(request)
      const given = request.body.refresh_token
      const token = given ?? readRefreshCookie(request)
      if (token === undefined) throw new ThreadbaseError('unauthorized', 'there is no refresh token')
      try {
        const tokens = await sessions.refresh(token, originOf(request))
        return sendTokens(request, reply, tokens, given === undefined)
      } catch (error) {
        if (given === undefined) clearTokenCookies(reply)
        throw error
      }
    },
  )

  app.post<{ Body: { refresh_token?: string; all?: boolean } }>(
    '/api/logout',
    {
      schema: routeSchema({
        operationId: 'logOut',
        access: 'public',
        tags,
        summary: 'End the session of the access or refresh token, on all servers',
        body: Logout,
        response: { 204: Type.Null() },
      }),
    },
    async (request, reply) => {
      begin(request)
      const { userId, sessionId } = await sessionOfRequest(request, request.body.refresh_token)
      const actor = { userId, via: 'session' as const, ...originOf(request) }
      if (request.body.all === true) await sessions.signOutAll(actor, sessionId)
      else await sessions.signOut(actor, sessionId)
      clearTokenCookies(reply)
      return reply.status(204).send()
    },
  )

  app.post(
    '/api/register',
    {
      schema: routeSchema({
        operationId: 'registerUser',
        access: 'public',
        tags,
        summary: 'Make an account of one’s own',
        description: 'Only where REGISTRATION is on.',
        body: asHttp(NewUser),
        response: { 201: UserBody },
      }),
    },
    async (request, reply) => {
      begin(request)
      if (!options.registration)
        throw new ThreadbaseError('forbidden', 'registration is off: ask an administrator for an account')
      const input = fromHttp<NewUser>(request.body)
      await signIn.countAttempt(`NEW:${normalizeLogin(input.username)}`, originOf(request))
      const user = await users.create({ userId: 'anonymous', via: 'password', ...originOf(request) }, input)
      return reply.status(201).send(snakeKeys(user))
    },
  )

  app.get(
    '/api/me',
    {
      schema: routeSchema({
        operationId: 'getMe',
        tags,
        summary: 'Who am I, and what may this credential do',
        response: { 200: Me },
      }),
    },
    async ({ identity: { userId, via, isSuperuser, scopes, sessionId } }) => {
      const user = via === 'single-user' ? null : await users.getUser(userId)
      return {
        user_id: userId,
        via,
        is_superuser: isSuperuser,
        ...(scopes === undefined ? {} : { scopes }),
        ...(sessionId === undefined ? {} : { csrf_token: sessions.csrfToken(sessionId) }),
        user: user && snakeKeys(user),
      }
    },
  )

  app.patch(
    '/api/me',
    {
      schema: routeSchema({
        operationId: 'updateMe',
        access: 'account',
        tags,
        summary: 'Change my email, name or picture',
        body: asHttp(ProfilePatch),
        response: { 200: UserBody },
      }),
    },
    async (request) => {
      refuseWithoutRow(request)
      const patch = fromHttp<ProfilePatch>(request.body)
      const user: User = await users.updateProfile(actorOf(request), request.identity.userId, patch)
      return snakeKeys(user)
    },
  )

  app.post<{ Body: { current_password: string; new_password: string } }>(
    '/api/me/password',
    {
      schema: routeSchema({
        operationId: 'changePassword',
        access: 'account',
        tags,
        summary: 'Change my password, which ends all my other sessions',
        body: NewPassword,
        response: { 204: Type.Null() },
      }),
    },
    async (request, reply) => {
      requireAccounts()
      const { userId, sessionId } = request.identity
      const { current_password: current, new_password: next } = request.body
      // no login is counted under this: they are in lower case
      const attempt = `ID:${userId}`
      await signIn.countAttempt(attempt, originOf(request))
      await users.changePassword(actorOf(request), userId, { current, next, keepSession: sessionId })
      await signIn.forgiveAttempt(attempt, originOf(request))
      return reply.status(204).send()
    },
  )

  async function sessionOfRequest(request: FastifyRequest, refreshToken: string | undefined) {
    if (refreshToken !== undefined) return sessions.ofRefreshToken(refreshToken)
    const credential = readCredential(request)
    if (credential?.kind === 'bearer') return sessions.ofAccessToken(credential.token)
    const cookie = readRefreshCookie(request)
    const found =
      cookie !== undefined
        ? await sessions.ofRefreshToken(cookie)
        : credential?.kind === 'cookie'
          ? await sessions.ofAccessToken(credential.token)
          : undefined
    if (found === undefined) throw new ThreadbaseError('unauthorized', 'there is no session to end')
    if (changesSomething(request)) requireCsrfToken(request, found.sessionId, sessions)
    return found
  }
}

function refuseWithoutRow({ identity }: FastifyRequest): void {
  if (identity.via === 'single-user')
    throw new ThreadbaseError('not_found', 'single-user mode has no accounts')
}

/** A form as HTML pages and OAuth clients send it, in the types of its JSON twin. */
function readForm(text: string): Record<string, unknown> {
  // without a prototype, so that `__proto__` is an unknown field like any other
  const fields: Record<string, unknown> = Object.create(null)
  for (const [name, value] of new URLSearchParams(text)) fields[name] = value
  if (fields.cookies === 'true' || fields.cookies === 'false') fields.cookies = fields.cookies === 'true'
  return fields
}

/** With cookies the tokens are nowhere else: what no script can read, no script can steal. */
function sendTokens(request: FastifyRequest, reply: FastifyReply, tokens: Tokens, cookies: boolean) {
  reply.header('cache-control', 'no-store')
  if (cookies) setTokenCookies(request, reply, tokens)
  return reply.send({
    user_id: tokens.userId,
    token_type: 'bearer',
    ...(cookies ? {} : { access_token: tokens.accessToken, refresh_token: tokens.refreshToken }),
    expires_in: tokens.accessExpiresInS,
    refresh_expires_in: tokens.refreshExpiresInS,
    ...(cookies ? { csrf_token: tokens.csrfToken } : {}),
  })
}
