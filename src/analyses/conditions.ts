import { ThreadbaseError } from '../core/errors.ts'
import { type IfVersion, MAX_VERSION } from './schema.ts'

/** Whether a write that finds its own content stored may have stored it: it was meant to become the version that is there. */
export const isRepeated = (ifVersion: IfVersion | undefined, version: number) =>
  ifVersion === undefined || ifVersion === '*' || ifVersion === version || ifVersion === version - 1

/** @throws conflict when the version that is there (undefined: none) is not what the caller means */
export function requireVersion(
  sessionId: string,
  version: number | undefined,
  ifVersion: IfVersion | undefined,
): void {
  const isMet =
    ifVersion === undefined || ifVersion === 'none'
      ? version === undefined
      : version !== undefined && (ifVersion === '*' || ifVersion === version)
  if (isMet) return
  const there = `session ${sessionId} has an analysis already, version ${version}`
  const message =
    version === undefined
      ? `session ${sessionId} has no analysis that could be replaced`
      : ifVersion === undefined
        ? `${there}: say which version this one replaces (If-Match, ifVersion)`
        : ifVersion === 'none'
          ? there
          : `the analysis of session ${sessionId} is at version ${version}, not ${ifVersion}: read it and try again`
  throw new ThreadbaseError('conflict', message, { sessionId, version: version ?? null })
}

/** @throws invalid_input for what is no version and no word for one */
export function requireIfVersion(version: unknown): void {
  if (version === undefined || version === '*' || version === 'none') return
  if (Number.isInteger(version) && Number(version) >= 1 && Number(version) <= MAX_VERSION) return
  throw new ThreadbaseError('invalid_input', `the version must be a whole number from 1 to ${MAX_VERSION}`, {
    field: 'version',
  })
}
