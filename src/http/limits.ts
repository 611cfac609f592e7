import type { IncomingMessage, Server } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyHttpOptions, FastifyInstance, FastifyServerOptions } from 'fastify'
import { newId } from '../core/ids.ts'
import type { TrustProxy } from '../core/network.ts'
import { errorBody } from './errors.ts'
import { RAW_HEADERS } from './headers.ts'

/** How much and how slowly a client may send, and how long it is answered. */
export type Limits = {
  /** Of a request's headers, its URL included. */
  headerBytes: number
  headersTimeoutMs: number
  /** For a whole request, body included. */
  requestTimeoutMs: number
  /** From the headers to the answer; streams have none. */
  handlerTimeoutMs: number
  /** For a connection without a request. */
  keepAliveTimeoutMs: number
  /** At the same time; further ones are closed. */
  connections: number
  /** Open streams of one user at the same time. */
  streamsPerUser: number
}

export const DEFAULT_LIMITS: Limits = {
  headerBytes: 16_000,
  headersTimeoutMs: 15_000,
  requestTimeoutMs: 120_000,
  handlerTimeoutMs: 180_000,
  keepAliveTimeoutMs: 75_000,
  connections: 10_000,
  streamsPerUser: 20,
}

const MAX_PARAM_CHARS = 500
/** The longest that a timer can be: a route cannot be without a limit once the server has one. */
export const NEVER_MS = 2_147_483_647

declare module 'fastify' {
  interface FastifyContextConfig {
    /**
     * A request without a time limit as a whole. `transfer`: it takes as long as its bytes, which must come and go without
     * a pause longer than the limit would be. `work`: so does its answer.
     */
    untimed?: 'transfer' | 'work'
  }
}

/** The limits as Fastify and Node's HTTP server take them. */
export function serverOptions(limits: Limits): FastifyHttpOptions<Server> {
  const { headersTimeoutMs, requestTimeoutMs } = limits
  return {
    // the server looks for late connections this often: twice within the shortest limit, but not all the time
    http: {
      maxHeaderSize: limits.headerBytes,
      headersTimeout: headersTimeoutMs,
      connectionsCheckingInterval: Math.min(
        5_000,
        Math.max(50, Math.min(headersTimeoutMs, requestTimeoutMs) / 2),
      ),
    },
    requestTimeout: requestTimeoutMs,
    handlerTimeout: limits.handlerTimeoutMs,
    keepAliveTimeout: limits.keepAliveTimeoutMs,
    routerOptions: { maxParamLength: MAX_PARAM_CHARS },
    clientErrorHandler: answerBrokenRequest,
  }
}

/**
 * Fastify refuses to count hops, since it cannot know that the nearest one is a proxy: who counts them says that
 * nobody reaches the server past its proxies.
 */
export function trustProxyOf(trust: TrustProxy): FastifyServerOptions['trustProxy'] {
  if (trust === false) return false
  return 'hops' in trust ? (_address: string, hop: number) => hop < trust.hops : trust.addresses
}

/** Closes connections beyond the limit, and says so once until there is room again. */
export function limitConnections(app: FastifyInstance, limit: number): void {
  app.server.maxConnections = limit
  let full = false
  app.server.on('drop', () => {
    if (!full) app.log.warn({ limit }, 'there are too many connections: further ones are closed')
    full = true
  })
  app.server.on('connection', () => {
    full = false
  })
}

const untimed = new WeakSet<Socket>()

/** Takes the time limits off the requests whose routes say so. Register it before the routes. */
export function registerUntimed(app: FastifyInstance, { requestTimeoutMs }: Limits): void {
  app.addHook('onRoute', (route) => {
    if (route.config?.untimed !== undefined) route.handlerTimeout = NEVER_MS
  })
  app.addHook('onRequest', async ({ raw, routeOptions }, reply) => {
    const { socket } = raw
    const kind = routeOptions.config.untimed
    if (kind === undefined) return
    untimed.add(socket)
    reply.raw.once('close', () => untimed.delete(socket))
    if (kind !== 'transfer') return
    // the answer's end takes it off again
    socket.setTimeout?.(requestTimeoutMs)
    // between the bytes that came and the answer, the storage is at work
    if (hasBody(raw)) raw.once('end', () => socket.setTimeout?.(0))
  })
  app.addHook('onSend', async ({ raw: { socket }, routeOptions }) => {
    if (routeOptions.config.untimed === 'transfer') socket.setTimeout?.(requestTimeoutMs)
  })
}

const hasBody = ({ headers }: IncomingMessage) =>
  headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0

const REQUEST_TIMEOUT = 'ERR_HTTP_REQUEST_TIMEOUT'
const ANSWERS: Record<string, [status: string, code: 'too_large' | 'invalid_input', message: string]> = {
  HPE_HEADER_OVERFLOW: ['431 Request Header Fields Too Large', 'too_large', 'the headers are too large'],
  HPE_CHUNK_EXTENSIONS_OVERFLOW: ['413 Content Too Large', 'too_large', 'the chunk extensions are too large'],
  [REQUEST_TIMEOUT]: ['408 Request Timeout', 'invalid_input', 'the request took too long'],
}

/** For what is not even HTTP: there is no request to answer through. */
function answerBrokenRequest(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) return
  // the server counts the time of every request, tells of it once, and leaves it to this what comes of that
  if (error.code === REQUEST_TIMEOUT && untimed.has(socket)) return
  // in the middle of another answer these bytes would become a part of it
  if (isAnswering(socket)) {
    socket.destroy()
    return
  }
  const [status, code, message] = ANSWERS[error.code ?? ''] ?? [
    '400 Bad Request',
    'invalid_input',
    'this is not HTTP',
  ]
  const id = newId()
  const body = JSON.stringify(errorBody(code, message, id))
  socket.end(
    `HTTP/1.1 ${status}\r\nconnection: close\r\nx-request-id: ${id}\r\n${RAW_HEADERS}content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  )
}

/** As Node's own handler of such errors finds out. */
function isAnswering(socket: Socket): boolean {
  const { _httpMessage: answer } = socket as Socket & { _httpMessage?: { headersSent: boolean } | null }
  return answer?.headersSent === true
}
