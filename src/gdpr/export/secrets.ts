import { snakeKeys } from '../../core/case.ts'
import { isThreadbaseError } from '../../core/errors.ts'
import type { CredentialService, VariableService } from '../../credentials/service.ts'
import type { Db } from '../../db/schema.ts'
import { pagesOf } from './pages.ts'
import { SECRETS } from './tables.ts'

type Services = {
  credentials: Pick<CredentialService, 'apiKeys'>
  variables: Pick<VariableService, 'list'>
}

/** The user's keys for providers, masked. */
export async function* providerKeys(
  { credentials }: Services,
  db: Db,
  userId: string,
): AsyncGenerator<unknown[]> {
  const masked = async function* () {
    const { items } = await credentials.apiKeys.list({ userId })
    yield items.map(({ userId: _, ...key }) => snakeKeys(key))
  }
  yield* orUnread(masked(), pagesOf(db, SECRETS.providerKeys, userId, unread))
}

/** The user's variables: the values of generic ones, of credentials the masks. */
export async function* variables({ variables }: Services, db: Db, userId: string): AsyncGenerator<unknown[]> {
  const masked = async function* () {
    let cursor: string | undefined
    do {
      const page = await variables.list({ userId }, { limit: 100, cursor })
      yield page.items.map(({ userId: _, ...variable }) => snakeKeys(variable))
      cursor = page.nextCursor
    } while (cursor !== undefined)
  }
  yield* orUnread(masked(), pagesOf(db, SECRETS.variables, userId, unread))
}

const unread = (row: Record<string, unknown>) => ({ ...row, mask: null, is_readable: false })

/** Where no encryption key is configured, which is told before the first row, rows come without what is encrypted in them. */
async function* orUnread(
  pages: AsyncGenerator<unknown[]>,
  without: AsyncGenerator<unknown[]>,
): AsyncGenerator<unknown[]> {
  let begun = false
  try {
    for await (const page of pages) {
      begun = true
      yield page
    }
  } catch (error) {
    if (begun || !isThreadbaseError(error, 'unavailable')) throw error
    yield* without
  }
}
