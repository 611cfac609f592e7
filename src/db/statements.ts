import type { CompiledQuery } from 'kysely'

/** Told of every statement by name, before it is sent; what it returns is called when it is over. */
export type StatementTrace = (name: string) => ((error?: unknown) => void) | undefined

/** A query and the user under whom it runs. */
export type UserQuery<R = unknown> = { userId: string; query: CompiledQuery<R> }
