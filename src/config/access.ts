import { checkHttpUrl } from '../core/network.ts'
import { between, listOf, oneOf, type Variable } from './variable.ts'

// those with a public key: with a shared secret the provider's public key could be used as one
const JWT_ALGORITHMS: ReadonlySet<string> = new Set([
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
])

/** Who may call, and how often. */
export const ACCESS = {
  AUTH_MODE: {
    name: 'AUTH_MODE',
    kind: 'text',
    default: 'single-user',
    description:
      'Who may call. `single-user`: whoever reaches the loopback address; everything belongs to user `local`. `accounts`: users of this installation, by password. `jwt`: users of an external provider, by its tokens. `proxy`: whom a trusted proxy names. API keys work in all but the first.',
    check: oneOf('single-user', 'accounts', 'jwt', 'proxy'),
  },
  AUTH_SECRET: {
    name: 'AUTH_SECRET',
    kind: 'secret',
    description:
      'Signs the tokens of `accounts`: 32 random characters or more, the same on all servers. A list (comma-separated) to change it: the first signs, all verify. Default: made once, in `DATA_DIR/auth.secret`; required with `NODE_ENV=production`.',
    check: listOf(
      (secret) => secret.length >= 32,
      'must be 32 characters or more, or a comma-separated list of such',
    ),
  },
  ACCESS_TOKEN_TTL_S: {
    name: 'ACCESS_TOKEN_TTL_S',
    kind: 'integer',
    default: '3600',
    description: 'Seconds that an access token of `accounts` is good for.',
    check: between(1, 86_400),
  },
  REFRESH_TOKEN_TTL_S: {
    name: 'REFRESH_TOKEN_TTL_S',
    kind: 'integer',
    default: '604800',
    description: 'Seconds after which a sign-in that was not refreshed ends.',
    check: between(1, 31_536_000),
  },
  BCRYPT_COST: {
    name: 'BCRYPT_COST',
    kind: 'integer',
    default: '12',
    description: 'log2 of the rounds of bcrypt; one more doubles the time of a sign-in (12: about 0.3 s).',
    check: between(4, 18),
  },
  REGISTRATION: {
    name: 'REGISTRATION',
    kind: 'boolean',
    default: 'false',
    description: 'Whether anybody may make an account of their own in mode `accounts`.',
  },
  LOGIN_LIMIT_PER_USER: {
    name: 'LOGIN_LIMIT_PER_USER',
    kind: 'integer',
    default: '10',
    description: 'Failed sign-ins in 15 minutes for one username or email; then it is `rate_limited`.',
    check: between(1, 1_000_000),
  },
  LOGIN_LIMIT_PER_ADDRESS: {
    name: 'LOGIN_LIMIT_PER_ADDRESS',
    kind: 'integer',
    default: '100',
    description: 'Failed sign-ins in 15 minutes from one address (IPv6: one /64 network).',
    check: between(1, 1_000_000),
  },
  RATE_LIMIT_PER_MINUTE: {
    name: 'RATE_LIMIT_PER_MINUTE',
    kind: 'integer',
    description:
      'Requests a minute of one user to one endpoint, and of one address to a public one; 0 for no limit. Default: 1000, and no limit in mode `single-user`.',
    check: between(0, 1_000_000_000),
  },
  JWT_JWKS_URL: {
    name: 'JWT_JWKS_URL',
    kind: 'text',
    description: "Mode `jwt`: where the provider's public keys are.",
    check: checkHttpUrl,
  },
  JWT_ISSUER: {
    name: 'JWT_ISSUER',
    kind: 'text',
    description: 'Mode `jwt`: what `iss` of a token must be.',
  },
  JWT_AUDIENCE: {
    name: 'JWT_AUDIENCE',
    kind: 'text',
    description:
      'Mode `jwt`: what `aud` of a token must hold, or a comma-separated list of which it must hold one. Not looked at when not set: then tokens that the provider issued for other applications are accepted.',
    check: listOf(() => true, 'must hold an audience'),
  },
  JWT_ALGORITHMS: {
    name: 'JWT_ALGORITHMS',
    kind: 'text',
    default: 'RS256,ES256',
    description: 'Mode `jwt`: signature algorithms that are accepted.',
    check: listOf(
      (name) => JWT_ALGORITHMS.has(name),
      `must hold one or more of these, and nothing else: ${[...JWT_ALGORITHMS].join(', ')}`,
    ),
  },
  JWT_CLOCK_SKEW_S: {
    name: 'JWT_CLOCK_SKEW_S',
    kind: 'integer',
    default: '30',
    description: "Mode `jwt`: seconds by which the provider's clock may differ.",
    check: between(0, 600),
  },
  PROXY_SECRET: {
    name: 'PROXY_SECRET',
    kind: 'secret',
    description:
      'Mode `proxy`: what the proxy sends in `X-Proxy-Secret` beside `X-User-Id`, 32 characters or more.',
    check: (value) => (value.length >= 32 ? undefined : 'must be 32 characters or more'),
  },
} as const satisfies Record<string, Variable>
