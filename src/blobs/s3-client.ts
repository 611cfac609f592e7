import { S3Client, type S3ClientConfig } from '@aws-sdk/client-s3'
import { ThreadbaseError } from '../core/errors.ts'
import type { Logger } from '../core/log.ts'

export type S3Options = {
  bucket: string
  region: string
  /** Where the server is, as a URL. Default: AWS. */
  endpoint?: string
  /** Whether the bucket is named in the path, not in front of the host. Default false. */
  forcePathStyle?: boolean
  /** Begins every key. Empty, or ends in `/`. */
  prefix: string
  /** Default: those that the SDK finds. */
  credentials?: { accessKeyId: string; secretAccessKey: string; sessionToken?: string }
  log?: Logger
  /** Until a connection is made. Default 5,000. */
  connectTimeoutMs?: number
  /** Without a byte, in either direction. Default 30,000. */
  idleTimeoutMs?: number
  /** Of each request, the first included. Default 3. */
  attempts?: number
  /** What is kept in memory of an upload, twice: of up to that many bytes at a time. At least 5 MiB. Default 8 MiB. */
  partBytes?: number
  /**
   * A larger object is copied in parts. At most 5 GiB. Default 64 MiB: a server that
   * says nothing while it copies must be done within the idle time.
   */
  copyBytes?: number
  /** Of each of them. At least 5 MiB. Default 64 MiB. */
  copyPartBytes?: number
}

/** A bucket, and how to ask it. */
export type S3 = {
  readonly client: S3Client
  /** The same for what is streamed out: it has no time limit of its own once the bytes come, see `s3-read.ts`. */
  readonly downloads: S3Client
  readonly bucket: string
  readonly prefix: string
  readonly description: string
  readonly log: Logger | undefined
  readonly idleTimeoutMs: number
  readonly partBytes: number
  readonly copyBytes: number
  readonly copyPartBytes: number
  /** What the work answers. @throws unavailable, when it fails, that names S3's code and no credential */
  ask<T>(work: () => Promise<T>): Promise<T>
  /** The same; undefined where it fails in this way. */
  askUnless<T>(isExpected: (error: unknown) => boolean, work: () => Promise<T>): Promise<T | undefined>
  /** What an error of the SDK or the network becomes. One of ours stays. */
  toUnavailable(error: unknown): ThreadbaseError
}

const MiB = 1 << 20
const MAX_SOCKETS = 200

/** Asks nobody anything yet. */
export function createS3(options: S3Options): S3 {
  const { bucket, prefix, endpoint, region, log, idleTimeoutMs = 30_000 } = options
  const common: S3ClientConfig = {
    region,
    endpoint,
    forcePathStyle: options.forcePathStyle,
    credentials: options.credentials,
    maxAttempts: options.attempts ?? 3,
    retryMode: 'standard',
    // other servers know fewer checksums than AWS: what is wanted is sent by name, and each body's hash is signed
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    // the SDK opens a connection for each request that asks first
    expectContinueHeader: false,
  }
  const connectionTimeout = options.connectTimeoutMs ?? 5_000
  const logger = log && loggerOf(log)
  const agent = { keepAlive: true, maxSockets: MAX_SOCKETS }
  const client = new S3Client({
    ...common,
    requestHandler: {
      connectionTimeout,
      socketTimeout: idleTimeoutMs,
      httpAgent: agent,
      httpsAgent: agent,
      logger,
    },
  })
  const manyAgent = { keepAlive: true, maxSockets: Number.POSITIVE_INFINITY }
  const downloads = new S3Client({
    ...common,
    requestHandler: {
      connectionTimeout,
      requestTimeout: idleTimeoutMs,
      throwOnRequestTimeout: true,
      // a reader that takes its time is no fault of the storage
      socketTimeout: 0,
      httpAgent: manyAgent,
      httpsAgent: manyAgent,
      logger,
    },
  })
  const host = endpoint === undefined ? `s3.${region}.amazonaws.com` : new URL(endpoint).host
  const description = `S3 bucket ${bucket} at ${host}`
  const secrets = Object.values(options.credentials ?? {})
  const toUnavailable = (error: unknown) => unavailable(description, secrets, error)
  return {
    client,
    downloads,
    bucket,
    prefix,
    description,
    log,
    idleTimeoutMs,
    partBytes: options.partBytes ?? 8 * MiB,
    copyBytes: options.copyBytes ?? 64 * MiB,
    copyPartBytes: options.copyPartBytes ?? 64 * MiB,
    ask: (work) =>
      work().catch((error) => {
        throw toUnavailable(error)
      }),
    askUnless: (isExpected, work) =>
      work().catch((error) => {
        if (isExpected(error)) return undefined
        throw toUnavailable(error)
      }),
    toUnavailable,
  }
}

/** The HTTP status of S3's answer, which the SDK keeps with its error; undefined when there was none. */
export function statusOf(error: unknown): number | undefined {
  return (error as { $metadata?: { httpStatusCode?: number } } | undefined)?.$metadata?.httpStatusCode
}

/** Of an error of the SDK: there is no such object, or upload. A bucket that is not there is something else. */
export function isMissing(error: unknown): boolean {
  return statusOf(error) === 404 && (error as Error).name !== 'NoSuchBucket'
}

const WHY: Record<string, string> = {
  NoSuchBucket: 'there is no such bucket',
  InvalidAccessKeyId: 'the access key is not known there',
  SignatureDoesNotMatch: 'the secret key is wrong',
  AccessDenied: 'the access key may not do this',
  InvalidToken: 'the session token is not valid',
  ExpiredToken: 'the session has ended',
  RequestTimeTooSkewed: 'the clock of this machine is wrong',
  PermanentRedirect: 'the bucket is in another region',
  AuthorizationHeaderMalformed: 'the bucket is in another region',
  CredentialsProviderError: 'there are no credentials',
  // of HEAD, whose answer has no body that would say more
  'HTTP 301': 'the bucket is in another region',
  'HTTP 403': 'the access key or its secret is wrong, or it may not do this',
  QuotaExceeded: 'it is full',
  ENOTFOUND: 'the host is not known',
  ECONNREFUSED: 'the connection is refused',
  timeout: 'it does not answer',
}

function unavailable(description: string, secrets: (string | undefined)[], error: unknown): ThreadbaseError {
  if (error instanceof ThreadbaseError) return error
  const code = codeOf(error)
  const why = WHY[code]
  const message = `${description} failed: ${why === undefined ? code : `${why} (${code})`}`
  // the SDK's own error has the whole answer on it, which repeats what was signed
  let said = error instanceof Error ? error.message : ''
  for (const secret of secrets) if (secret) said = said.replaceAll(secret, '[redacted]')
  const cause = said === '' ? undefined : new Error(`${code}: ${said}`)
  return new ThreadbaseError('unavailable', message, { code }, { cause })
}

function codeOf(error: unknown): string {
  const { name, code } = error as { name?: string; code?: unknown }
  const status = statusOf(error)
  if (name === 'TimeoutError') return 'timeout'
  if (typeof code === 'string' && status === undefined) return code
  // of an answer without a body, or one that is not S3's
  const isNamed =
    name !== undefined && /^[A-Z]\w+$/.test(name) && !/^(Unknown(Error)?|(Syntax)?Error)$/.test(name)
  if (isNamed) return name
  return status === undefined ? 'unknown' : `HTTP ${status}`
}

function loggerOf(log: Logger) {
  const at = (level: keyof Logger) => (message: unknown) => log[level]({}, String(message))
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}
