import { hash } from 'node:crypto'
import { idFromName, isUuid } from '../core/ids.ts'
import { canonicalJson } from '../core/json.ts'

/** Ids of imported threads are made in this namespace. Never change it: known conversations would come in again. */
const NAMESPACE = '3f0c6a51-9a0e-5d4c-8a6b-6a1d3d0f4b7e'

/** The thread of a source id: the id itself when it is a UUID, else one made from it. */
export function threadIdOf(sourceId: string | number | object): string {
  if (isUuid(sourceId)) return sourceId.toLowerCase()
  return idFromName(NAMESPACE, `id:${canonicalJson(sourceId)}`)
}

/**
 * Makes the function that names conversations without an id: by their content, and by how many equal ones came
 * before in the same file, so that two equal ones are two threads and the same file gives the same ids again.
 */
export function createContentIds(): (conversation: unknown) => string {
  const seen = new Map<string, number>()
  return (conversation) => {
    const digest = hash('sha256', canonicalJson(conversation), 'base64')
    const earlier = seen.get(digest) ?? 0
    seen.set(digest, earlier + 1)
    return idFromName(NAMESPACE, `content:${digest}:${earlier}`)
  }
}

const PREFIX = 'import:'
const MAX_MESSAGE_ID = 255

/** The message id of an imported message: its place in the line from 0, or its node. */
export function importedMessageId(key: number | string): string {
  const id = `${PREFIX}${key}`
  const storable = id.isWellFormed() && !id.includes('\0') && id.length <= MAX_MESSAGE_ID
  return storable ? id : `${PREFIX}sha256:${hash('sha256', canonicalJson(key), 'hex')}`
}

export function isImportedMessageId(messageId: string | null): messageId is string {
  return messageId?.startsWith(PREFIX) ?? false
}

/** The place in its line of an imported message; undefined for a node or a message of another origin. */
export function placeOf(messageId: string | null): number | undefined {
  const digits = /^import:(0|[1-9]\d{0,14})$/.exec(messageId ?? '')?.[1]
  return digits === undefined ? undefined : Number(digits)
}
