import { ThreadbaseError } from './errors.ts'

/** On whose behalf a call is made. Every row that a service reads or writes belongs to this user. */
export type Scope = { readonly userId: string }

/** The user to whom everything belongs in mode `single-user`, and flat folders of council files. */
export const LOCAL_USER = 'local'

const MAX_USER_ID = 255

/**
 * The user's id.
 * @throws invalid_input when it is missing, empty, longer than 255 characters, or holds NUL or a lone surrogate, which
 *   the driver would replace: two users would become one
 */
export function userOf(scope: Scope): string {
  const userId: unknown = (scope as Scope | undefined)?.userId
  if (typeof userId !== 'string' || userId === '' || userId.length > MAX_USER_ID || !isStorable(userId)) {
    throw new ThreadbaseError('invalid_input', 'scope.userId must be a text of 1 to 255 characters', {
      field: 'userId',
    })
  }
  return userId
}

function isStorable(text: string): boolean {
  return text.isWellFormed() && !text.includes('\0')
}
