import type { Actor } from '../../audit/schema.ts'
import type { AuditService } from '../../audit/service.ts'
import { ThreadbaseError } from '../../core/errors.ts'
import { newId, requireUuid } from '../../core/ids.ts'
import { badCursor, decodeCursor, encodeCursor, type Page, toPage } from '../../core/pages.ts'
import { type Scope, userOf } from '../../core/scope.ts'
import { parseInput } from '../../core/validate.ts'
import type { Database } from '../../db/database.ts'
import { isSqlState, UNIQUE_VIOLATION } from '../../db/errors.ts'
import { NewVariable, type Variable, VariablePatch, VariableQuery } from '../schema.ts'
import { requireName, requireSecret } from '../secret-input.ts'
import { maskOf, type Opened, unreadable, type Vault } from '../vault.ts'
import * as repo from './repo.ts'

export type VariableService = ReturnType<typeof createVariableService>

type Parts = { audit: AuditService; vault: Vault }

const CURSOR = 'variables'

/** Named secrets and settings of users. All values are encrypted; that of a `credential` is given to this process alone. */
export function createVariableService({ forUser }: Pick<Database, 'forUser'>, { audit, vault }: Parts) {
  return {
    /**
     * Makes a variable, a `credential` unless it says otherwise.
     * @throws conflict when the user has one of this name; unavailable without an encryption key
     */
    async create(scope: Scope, actor: Actor, input: NewVariable): Promise<Variable> {
      const userId = userOf(scope)
      const given = parseInput(NewVariable, input, 'variable') as NewVariable
      const name = requireName(given.name)
      const value = requireSecret(given.value, 'the value')
      const { type = 'credential', defaultFields = [] } = given
      const row = { id: newId(), name, type, defaultFields, ...(await vault.seal(value)) }
      const made = await repo.insertVariable(forUser(userId), userId, row)
      if (made === undefined) throw nameTaken(name)
      await audit.record(actor, 'variable_created', userId, `variable ${made.id}`)
      return toVariable(made, { text: value })
    },

    /**
     * The user's variables by name. Pages by keyset: 50 a page, 100 at most. One that cannot be read is there without
     * value and mask. @throws unavailable without an encryption key
     */
    async list(scope: Scope, input: VariableQuery = {}): Promise<Page<Variable>> {
      const userId = userOf(scope)
      const { limit = 50, cursor } = parseInput(VariableQuery, input, 'query')
      const after = cursor === undefined ? '' : readCursor(cursor)
      const open = await vault.opener()
      const rows = await repo.listVariables(forUser(userId), userId, after, limit + 1)
      const { items, ...page } = toPage(rows, limit, ({ name }) => encodeCursor(CURSOR, [name]))
      return { items: items.map((row) => toVariable(row, open(row))), ...page }
    },

    /** By id. @throws not_found; unavailable without an encryption key */
    async getVariable(scope: Scope, id: string): Promise<Variable> {
      const userId = userOf(scope)
      const uuid = requireUuid(id, 'variable id')
      const open = await vault.opener()
      const row = await repo.findVariable(forUser(userId), userId, uuid)
      if (row === undefined) throw variableNotFound(id)
      return toVariable(row, open(row))
    },

    /**
     * Changes what is given.
     * @throws not_found; conflict when another has the name; invalid_input for a credential that would become generic
     *   without a new value, and so show its own; unavailable without an encryption key
     */
    async update(scope: Scope, actor: Actor, id: string, input: VariablePatch): Promise<Variable> {
      const userId = userOf(scope)
      const uuid = requireUuid(id, 'variable id')
      const patch = parseInput(VariablePatch, input, 'patch') as VariablePatch
      const { value, ...changes } = patch
      if (changes.name !== undefined) requireName(changes.name)
      const sealed = value === undefined ? undefined : await vault.seal(requireSecret(value, 'the value'))
      const open = await vault.opener()
      const row = await change(userId, uuid, { ...changes, sealed })
      await audit.record(actor, 'variable_changed', userId, `variable ${uuid}`)
      return toVariable(row, open(row))
    },

    /** Removes a variable. False when there was none, which is no error. */
    async delete(scope: Scope, actor: Actor, id: string): Promise<boolean> {
      const userId = userOf(scope)
      const uuid = requireUuid(id, 'variable id')
      if (!(await repo.deleteVariable(forUser(userId), userId, uuid))) return false
      await audit.record(actor, 'variable_deleted', userId, `variable ${uuid}`)
      return true
    },

    /**
     * The value of a variable of either type by its name, in plaintext; never empty. For callers in this process: no
     * route leads here.
     * @throws not_found; unavailable when the encryption key of its row is missing, which `details.keyId` names
     */
    async resolve(scope: Scope, name: string): Promise<string> {
      const userId = userOf(scope)
      const known = parseInput(NewVariable.properties.name, name, 'name')
      const open = await vault.opener()
      const row = await repo.findByName(forUser(userId), userId, known)
      if (row === undefined)
        throw new ThreadbaseError('not_found', `there is no variable ${known}`, { name: known })
      const opened = open(row)
      if ('text' in opened) return opened.text
      throw unreadable(`the variable ${known}`, row, opened.problem, { name: known, variableId: row.id })
    },
  }

  async function change(userId: string, id: string, changes: repo.Changes): Promise<repo.VariableRow> {
    const db = forUser(userId)
    try {
      const row = await repo.updateVariable(db, userId, id, changes)
      if (row !== undefined) return row
    } catch (error) {
      if (isSqlState(error, UNIQUE_VIOLATION)) throw nameTaken(String(changes.name))
      throw error
    }
    if ((await repo.findVariable(db, userId, id)) === undefined) throw variableNotFound(id)
    throw new ThreadbaseError(
      'invalid_input',
      'a credential becomes generic only together with a new value: its own is not shown',
      { field: 'type' },
    )
  }
}

// passwords are shorter than keys for providers, and have no beginning that all of them share
const LEAST_SHOWN = 32

function toVariable({ token: _, ...row }: repo.VariableRow, opened: Opened): Variable {
  const text = 'text' in opened ? opened.text : null
  return {
    id: row.id,
    userId: row.userId,
    name: row.name,
    type: row.type,
    value: row.type === 'generic' ? text : null,
    mask: text === null ? null : maskOf(text, LEAST_SHOWN),
    isReadable: text !== null,
    keyId: row.keyId,
    defaultFields: row.defaultFields,
    createdAt: row.createdAt,
    updatedAt: row.updatedAt,
  }
}

function readCursor(cursor: string): string {
  const [name] = decodeCursor(CURSOR, ['string'], cursor)
  if (name.includes('\0') || !name.isWellFormed()) throw badCursor()
  return name
}

function nameTaken(name: string): ThreadbaseError {
  return new ThreadbaseError('conflict', `there is a variable ${name} already`, { name })
}

function variableNotFound(id: string): ThreadbaseError {
  return new ThreadbaseError('not_found', `variable ${id} does not exist`, { variableId: id })
}
