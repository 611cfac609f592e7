import { parseJson } from '../core/json.ts'
import { type Codec, createCodecs, type EncryptionOptions, type StoredCoded } from './codec.ts'
import { blobPlace, recordPlace, writePlace } from './decode.ts'
import { PACK } from './list.ts'

/** What a row holds, as JSON; or its bytes in base64, where they are no JSON or cannot be read. */
export type Plain = { value: unknown } | { type: string | null; base64: string; problem?: string }

/** A value as its row has it. */
export type StoredData = { codec: number; keyId: string | null; data: Buffer }

type At = { ns: string; id: string }

/** A checkpoint without its values. */
export type PlainRecord = {
  /** Versions and the like, as LangGraph has them. */
  checkpoint: unknown
  /** By channel: the value itself, or the address of what it is made of. */
  channels: Record<string, unknown>
}

export type PlainState = ReturnType<typeof createPlainState>

const KINDS: Record<string, string> = { v: 'value', l: 'list', d: 'delta' }

/** Reads what is stored of checkpoints as plain JSON, without making objects of it: for people and other programs. */
export function createPlainState(encryption: EncryptionOptions | undefined) {
  const codecOf = createCodecs(encryption && { ...encryption, allowPlaintext: true })

  function open(codec: Codec, stored: StoredData, place: string): Buffer {
    const given: StoredCoded = { ...stored, text: null }
    return Buffer.from(codec.decode(given, place))
  }

  function read(userId: string, stored: StoredData, place: string, type: string | null): Plain {
    let body: Buffer
    try {
      body = open(codecOf(userId), stored, place)
    } catch (error) {
      return { type, base64: stored.data.toString('base64'), problem: (error as Error).message }
    }
    if (type !== 'json' && type !== PACK) return { type, base64: body.toString('base64') }
    try {
      return { value: parseJson(body.toString()) }
    } catch {
      return { type, base64: body.toString('base64') }
    }
  }

  return {
    /** A value of a thread. Several small elements of a list may be one value, which then is a list of them (`isPack`). */
    blob: (
      userId: string,
      hash: string,
      type: string | null,
      stored: StoredData,
    ): Plain & { isPack: boolean } => ({
      ...read(userId, stored, blobPlace(hash), type),
      isPack: type === PACK,
    }),

    write: (
      userId: string,
      at: At & { taskId: string; idx: number },
      type: string,
      stored: StoredData,
    ): Plain => read(userId, stored, writePlace(at.ns, at.id, at.taskId, at.idx), type),

    /** @param roots the addresses of the channels' values, in the order of the record */
    record(
      userId: string,
      { ns, id }: At,
      roots: (string | null)[],
      stored: StoredData,
    ): PlainRecord | Plain {
      const plain = read(userId, stored, recordPlace(ns, id), 'json')
      if (!('value' in plain)) return plain
      const { c, k } = plain.value as { c: unknown; k: [name: string, kind: string, inline?: unknown][] }
      const channels = k.flatMap(([name, kind, inline], i): [string, unknown][] => {
        if (kind === 'i') return [[name, { value: inline }]]
        const root = roots[i] ?? null
        return root === null ? [] : [[name, { is: KINDS[kind] ?? kind, hash: root }]]
      })
      return { checkpoint: c, channels: Object.fromEntries(channels) }
    },
  }
}
