import type { CompiledQuery } from 'kysely'

/**
 * In a statement whose best plan depends on its values. It is not prepared: after five times PostgreSQL would make one
 * plan for all values.
 */
export const PLANNED_ANEW = '/* planned anew */'

/** Told of every statement by name, before it is sent; what it returns is called when it is over. */
export type StatementTrace = (name: string) => ((error?: unknown) => void) | undefined

/** A query and the user under whom it runs. */
export type UserQuery<R = unknown> = { userId: string; query: CompiledQuery<R> }
