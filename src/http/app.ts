import cookie from '@fastify/cookie'
import fastify, { type FastifyBaseLogger, type FastifyInstance, LogController } from 'fastify'
import { analysisRoutes, sessionListRoutes } from '../analyses/routes.ts'
import type { AnalysisService, SessionService } from '../analyses/service.ts'
import { blobUrlRoutes } from '../artifacts/content/routes.ts'
import { fileRoutes } from '../artifacts/files/routes.ts'
import { artifactRoutes } from '../artifacts/routes.ts'
import type { ArtifactService, FileService } from '../artifacts/service.ts'
import { auditRoutes } from '../audit/routes.ts'
import type { AuditService } from '../audit/service.ts'
import type { Blobs } from '../blobs/blobs.ts'
import type { Cache } from '../cache/cache.ts'
import type { Limiter } from '../cache/limiter.ts'
import { configRoutes } from '../configs/routes.ts'
import type { ConfigService } from '../configs/service.ts'

import { councilRoutes } from '../conversations/council/routes.ts'
import { conversationRoutes } from '../conversations/routes.ts'
import type { ConversationStore, Council } from '../conversations/service.ts'
import { newId } from '../core/ids.ts'
import type { TrustProxy } from '../core/network.ts'
import { providerKeyRoutes } from '../credentials/api-keys/routes.ts'
import type { CredentialService, VariableService } from '../credentials/service.ts'
import { variableRoutes } from '../credentials/variables/routes.ts'
import type { Database } from '../db/database.ts'
import { gdprRoutes } from '../gdpr/routes.ts'
import type { GdprService } from '../gdpr/service.ts'
import { keyRoutes } from '../identity/keys/routes.ts'
import type { AuthSettings, IdentityService } from '../identity/service.ts'
import { userRoutes } from '../identity/users/routes.ts'
import { messageRoutes } from '../messages/routes.ts'
import type { MessageService } from '../messages/service.ts'
import type { EmbeddingService } from '../search/embed/service.ts'
import { searchRoutes } from '../search/routes.ts'
import type { SearchService } from '../search/service.ts'
import { threadRoutes } from '../threads/routes.ts'
import type { ThreadService } from '../threads/service.ts'
import type { Traces } from '../traces.ts'
import { transferRoutes } from '../transfer/routes.ts'
import type { TransferService } from '../transfer/service.ts'
import { usageAdminRoutes, usageRoutes } from '../usage/routes.ts'
import type { UsageService } from '../usage/service.ts'
import { registerAccess } from './access.ts'
import { mirrorReads } from './admin.ts'
import { registerAuth } from './auth.ts'
import { registerJson } from './body.ts'
import { registerCors } from './cors.ts'
import { clearTokenCookies } from './credentials.ts'
import { ErrorBody, routeNotFound, sendError } from './errors.ts'
import { securityHeaders } from './headers.ts'
import { healthRoutes } from './health.ts'
import {
  DEFAULT_LIMITS,
  type Limits,
  limitConnections,
  registerUntimed,
  serverOptions,
  trustProxyOf,
} from './limits.ts'
import { metricsRoute, registerMetrics } from './metrics.ts'
import { registerOpenApi } from './openapi.ts'
import { registerRateLimits } from './rate-limits.ts'
import { sessionRoutes } from './session-routes.ts'
import { registerStreams } from './streams.ts'
import { registerTraces } from './traces.ts'
import { registerValidation } from './validation.ts'

export type AppServices = {
  threads: ThreadService
  messages: MessageService
  embeddings: EmbeddingService
  configs: ConfigService
  conversations: ConversationStore
  council: Pick<Council, 'ask'>
  transfer: TransferService
  artifacts: ArtifactService
  files: FileService
  blobs: Blobs
  credentials: CredentialService
  variables: VariableService
  usage: UsageService
  search: SearchService
  sessions: SessionService
  analyses: AnalysisService
  gdpr: GdprService
  identity: IdentityService
  audit: AuditService
  limiter: Limiter
  cache: Cache
  database: Database
  /** The schema's revision when it is complete; throws `unavailable` otherwise. */
  revision(): Promise<string>
}

export type AppOptions = {
  bodyLimitBytes: number
  /** Of one artifact or file. */
  uploadLimitBytes: number
  log: FastifyBaseLogger
  auth: Pick<AuthSettings, 'mode' | 'registration' | 'proxySecret'>
  /** Requests a minute of one user to one endpoint. Default: no limit. */
  rateLimitPerMinute?: number
  metricsToken?: string
  /** Those that are not given are {@link DEFAULT_LIMITS}. */
  limits?: Partial<Limits>
  /** Whose pages may call from other origins. Default: none. */
  corsOrigins?: readonly string[]
  /** Default: the connection's own address and protocol count. */
  trustProxy?: TrustProxy
  /** Spans of requests; without it there are none. */
  traces?: Traces
}

const REQUEST_ID = /^[\w.:-]{1,100}$/

/** The HTTP API on the services; `listen` or `inject` it. Closing it lets requests in flight finish. */
export async function buildApp(services: AppServices, options: AppOptions): Promise<FastifyInstance> {
  const limits = { ...DEFAULT_LIMITS, ...options.limits }
  const corsOrigins = options.corsOrigins ?? []
  const origins = new Set(corsOrigins)
  const { identity } = services
  const setHeaders = securityHeaders({ crossOrigin: corsOrigins.length > 0 })
  const app: FastifyInstance = fastify({
    ...serverOptions(limits),
    trustProxy: trustProxyOf(options.trustProxy ?? false),
    loggerInstance: options.log,
    // one line a request, from the hook below
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: options.bodyLimitBytes,
    requestIdHeader: false,
    // what came in on an open connection before it closes is answered like the rest
    return503OnClosing: false,
    genReqId: ({ headers }) => {
      const given = headers['x-request-id']
      return typeof given === 'string' && REQUEST_ID.test(given) ? given : newId()
    },
    frameworkErrors: (error, request, reply) => {
      setHeaders(request, reply)
      void sendError(error, request, reply)
    },
  })
  limitConnections(app, limits.connections)
  app.setErrorHandler((error, request, reply) => sendError(error, request, reply))
  app.setNotFoundHandler((request, reply) => sendError(routeNotFound(request), request, reply))
  registerJson(app)
  registerValidation(app)
  app.addSchema(ErrorBody)
  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id)
    setHeaders(request, reply)
  })
  app.addHook('onResponse', async (request, reply) => {
    const ms = Math.round(reply.elapsedTime)
    request.log.debug(
      { method: request.method, route: request.routeOptions.url, status: reply.statusCode, ms },
      'request',
    )
  })
  closeFinishedConnections(app)
  registerUntimed(app, limits)
  const streams = registerStreams(app, limits.streamsPerUser)
  const metrics = registerMetrics(app, { ...services, streams, cacheStats: services.cache.stats })
  if (options.traces !== undefined) registerTraces(app, options.traces)
  await registerCors(app, corsOrigins)
  await app.register(cookie)
  registerAccess(app)
  registerAuth(app, { ...options.auth, identity, origins, metricsToken: options.metricsToken })
  registerRateLimits(app, services.limiter, options.rateLimitPerMinute ?? 0)
  await registerOpenApi(app)
  healthRoutes(app, services.database, services.revision)
  metricsRoute(app, metrics)
  sessionRoutes(app, { ...options.auth, identity, origins })
  const mirror = mirrorReads(app, services.audit)
  threadRoutes(app, services.threads)
  messageRoutes(app, services.messages, services.embeddings)
  configRoutes(app, services.configs)
  transferRoutes(app, services.transfer)
  conversationRoutes(app, services.conversations)
  councilRoutes(app, services.council)
  const uploadLimit = { maxBytes: options.uploadLimitBytes }
  await artifactRoutes(app, services.artifacts, uploadLimit)
  await fileRoutes(app, services.files, uploadLimit)
  keyRoutes(app, identity.keys)
  providerKeyRoutes(app, services.credentials.apiKeys)
  variableRoutes(app, services.variables)
  usageRoutes(app, services.usage)
  searchRoutes(app, services.search)
  sessionListRoutes(app, services.sessions)
  analysisRoutes(app, services.analyses)
  mirror.end()
  gdprRoutes(app, services.gdpr, { identity, clearCookies: clearTokenCookies })
  await blobUrlRoutes(app, services.blobs, uploadLimit)
  userRoutes(app, identity.users, services.audit)
  usageAdminRoutes(app, services.usage)
  auditRoutes(app, services.audit)
  return app
}

/**
 * Once the app is closing, each connection ends with its answer. Left open, they would keep the server from closing
 * until their clients give them up.
 */
function closeFinishedConnections(app: FastifyInstance): void {
  let closing = false
  app.addHook('preClose', async () => {
    closing = true
  })
  app.addHook('onSend', async (_request, reply) => {
    if (closing) reply.header('connection', 'close')
  })
}
