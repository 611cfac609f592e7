import type { ExternalSettings } from './external.ts'

export const AUTH_MODES = ['single-user', 'accounts', 'jwt', 'proxy'] as const
export type AuthMode = (typeof AUTH_MODES)[number]

/** How users are known, and what they may try how often. */
export type AuthSettings = {
  mode: AuthMode
  /** Sign the tokens of `accounts`: the first signs, all verify. Undefined: one that lives as long as the process. */
  secrets: readonly string[] | undefined
  accessTtlS: number
  refreshTtlS: number
  /** log2 of the rounds of bcrypt. */
  bcryptCost: number
  /** Whether anybody may make an account. */
  registration: boolean
  /** Sign-in attempts in {@link LOGIN_WINDOW_S} for one username or email, and from one address. */
  loginLimits: { perUser: number; perAddress: number }
  /** Of `jwt`. */
  external: ExternalSettings | undefined
  /** Of `proxy`: what the proxy proves itself with. */
  proxySecret: string | undefined
}

export const LOGIN_WINDOW_S = 900
