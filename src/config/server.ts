import { checkHttpUrl, checkOrigins, checkPairs, checkTrustProxy } from '../core/network.ts'
import { between, oneOf, type Variable } from './variable.ts'

/** What the server listens on, what it takes, and what it tells. */
export const SERVER = {
  HOST: {
    name: 'HOST',
    kind: 'text',
    default: '127.0.0.1',
    description: 'Address to listen on. In mode `single-user` only loopback is accepted.',
  },
  PORT: {
    name: 'PORT',
    kind: 'integer',
    default: '4100',
    description: 'Port to listen on; 0 takes a free one.',
    check: between(0, 65_535),
  },
  METRICS_TOKEN: {
    name: 'METRICS_TOKEN',
    kind: 'secret',
    description:
      'Bearer token that may read `/metrics` and nothing else, 16 characters or more. Without it: superusers, and anybody in mode `single-user`.',
    check: (value) => (value.length >= 16 ? undefined : 'must be 16 characters or more'),
  },
  BODY_LIMIT_MB: {
    name: 'BODY_LIMIT_MB',
    kind: 'number',
    default: '10',
    description: 'Largest request body in MB (1,000,000 bytes); a larger one is `too_large`.',
    check: between(0.001, 1_000),
  },
  CORS_ORIGINS: {
    name: 'CORS_ORIGINS',
    kind: 'text',
    description:
      'Origins whose pages may call with credentials, such as `https://app.example.com,http://localhost:3000`. `*` is refused. None: no page of another origin.',
    check: checkOrigins,
  },
  TRUST_PROXY: {
    name: 'TRUST_PROXY',
    kind: 'text',
    description:
      'Proxies whose `X-Forwarded-For`, `-Proto` and `-Host` are believed: addresses and networks (`10.0.0.0/8,::1`), or how many stand in front of a server that nobody reaches past them. None: the connection alone counts.',
    check: checkTrustProxy,
  },
  HEADER_LIMIT_KB: {
    name: 'HEADER_LIMIT_KB',
    kind: 'integer',
    default: '16',
    description:
      'Largest headers of a request in KB (1,000 bytes), its URL included; larger ones are `too_large`.',
    check: between(4, 1_000),
  },
  HEADERS_TIMEOUT_S: {
    name: 'HEADERS_TIMEOUT_S',
    kind: 'number',
    default: '15',
    description: 'Seconds in which the headers of a request must have come.',
    check: between(0.1, 3_600),
  },
  REQUEST_TIMEOUT_S: {
    name: 'REQUEST_TIMEOUT_S',
    kind: 'number',
    default: '120',
    description: 'Seconds in which a whole request, body included, must have come.',
    check: between(0.1, 3_600),
  },
  HANDLER_TIMEOUT_S: {
    name: 'HANDLER_TIMEOUT_S',
    kind: 'number',
    default: '180',
    description:
      'Seconds after which a request without an answer is `unavailable`, from its headers on; streams have no limit.',
    check: between(0.1, 86_400),
  },
  KEEP_ALIVE_TIMEOUT_S: {
    name: 'KEEP_ALIVE_TIMEOUT_S',
    kind: 'number',
    default: '75',
    description:
      'Seconds that a connection stays open without a request. Longer than that of the proxy in front, which would otherwise meet closed connections.',
    check: between(0.1, 3_600),
  },
  MAX_CONNECTIONS: {
    name: 'MAX_CONNECTIONS',
    kind: 'integer',
    default: '10000',
    description: 'Connections at the same time; further ones are closed unanswered.',
    check: between(1, 1_000_000),
  },
  MAX_STREAMS_PER_USER: {
    name: 'MAX_STREAMS_PER_USER',
    kind: 'integer',
    default: '20',
    description: 'Streams (exports) that a user may have open at the same time; one more is `rate_limited`.',
    check: between(1, 1_000_000),
  },
  LOG_LEVEL: {
    name: 'LOG_LEVEL',
    kind: 'text',
    default: 'info',
    description: '`trace`, `debug`, `info`, `warn`, `error`, `fatal` or `silent`.',
    check: oneOf('trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'),
  },
  OTEL_EXPORTER_OTLP_ENDPOINT: {
    name: 'OTEL_EXPORTER_OTLP_ENDPOINT',
    kind: 'secret',
    description:
      'Collector of OpenTelemetry traces (OTLP over HTTP), such as `http://localhost:4318`. None: no traces, at no cost.',
    check: checkHttpUrl,
  },
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: {
    name: 'OTEL_EXPORTER_OTLP_TRACES_ENDPOINT',
    kind: 'secret',
    description: 'The same as a whole URL, such as `http://localhost:4318/v1/traces`; comes first.',
    check: checkHttpUrl,
  },
  OTEL_EXPORTER_OTLP_HEADERS: {
    name: 'OTEL_EXPORTER_OTLP_HEADERS',
    kind: 'secret',
    description: 'Headers for the collector, as `name=value,name=value`, values URL-encoded.',
    check: checkPairs,
  },
  OTEL_SERVICE_NAME: {
    name: 'OTEL_SERVICE_NAME',
    kind: 'text',
    default: 'threadbase',
    description: 'What traces call this service.',
  },
  SHUTDOWN_TIMEOUT_S: {
    name: 'SHUTDOWN_TIMEOUT_S',
    kind: 'integer',
    default: '10',
    description: 'Seconds that requests in flight have to finish after SIGTERM or SIGINT.',
    check: between(0, 3_600),
  },
} as const satisfies Record<string, Variable>
