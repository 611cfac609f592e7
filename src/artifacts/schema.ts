import { type Static, Type } from 'typebox'
import { ThreadbaseError } from '../core/errors.ts'
import { closed, JsonObject, Nullable, Text, Timestamp, Uuid } from '../core/fields.ts'
import { encodeText } from '../core/json.ts'

/** Any text, kept as it is: a name is data and never a path. */
const Filename = (description: string) => Type.String({ minLength: 1, maxLength: 1_000, description })

const Sha256 = Type.String({
  pattern: '^[0-9a-f]{64}$',
  description: 'SHA-256 of the bytes, 64 lower-case hexadecimal digits.',
})
const Size = Type.Integer({
  minimum: 0,
  maximum: 5_000_000_000_000,
  description: 'How many bytes there are.',
})

/** What bytes are announced to be: others are refused. */
const announced = { sha256: Type.Optional(Sha256), size: Type.Optional(Size) }

const named = {
  filename: Type.Optional(Filename('Default: `file`, with the ending of its type.')),
  mime: Type.Optional(
    Text(255, {
      description:
        'What the client takes the type to be. The bytes decide; of text it is believed which kind of text.',
    }),
  ),
}

const origin = {
  sessionId: Type.Optional(Nullable(Text(255, { description: 'The sandbox session that made it.' }))),
  runId: Type.Optional(Nullable(Text(255, { description: "The graph's run." }))),
  toolCallId: Type.Optional(Nullable(Text(255, { description: 'The tool call.' }))),
  meta: Type.Optional(JsonObject({ description: 'Your own fields. On S3 `s3_key` and `s3_url` are added.' })),
}

export const NewArtifact = Type.Object({ ...named, ...origin, ...announced }, closed)
export type NewArtifact = Static<typeof NewArtifact>

const expiresInS = Type.Optional(
  Type.Integer({
    minimum: 1,
    maximum: 604_800,
    default: 3_600,
    description: 'Seconds for which the URL is good.',
  }),
)

export const NewArtifactUpload = Type.Object(
  { ...named, ...origin, sha256: Sha256, size: Size, expiresInS },
  closed,
)
export type NewArtifactUpload = Static<typeof NewArtifactUpload>

export const IngestedObject = Type.Object(
  {
    s3Key: Type.String({
      minLength: 1,
      maxLength: 1_024,
      description: 'Key of the object in the storage, below `uploads/` or `output/` (and the prefix).',
    }),
    ...named,
    ...origin,
    ...announced,
  },
  closed,
)
export type IngestedObject = Static<typeof IngestedObject>

const page = {
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 200, default: 50 })),
  cursor: Type.Optional(Type.String({ maxLength: 500, description: '`next_cursor` of the page before.' })),
}

export const ArtifactQuery = Type.Object(
  {
    ...page,
    runId: Type.Optional(Text(255, { description: 'Only what this run made.' })),
    toolCallId: Type.Optional(Text(255, { description: 'Only what this tool call made.' })),
  },
  closed,
)
export type ArtifactQuery = Static<typeof ArtifactQuery>

const fileFields = {
  flowId: Type.Optional(Nullable(Uuid({ description: 'The flow it belongs to.' }))),
  temporary: Type.Optional(
    Type.Boolean({ default: false, description: 'Whether it is gone 24 hours from now.' }),
  ),
  meta: Type.Optional(JsonObject({ description: 'Your own fields. On S3 `s3_key` and `s3_url` are added.' })),
}

export const NewFile = Type.Object({ ...named, ...fileFields, ...announced }, closed)
export type NewFile = Static<typeof NewFile>

export const NewFileUpload = Type.Object(
  { ...named, ...fileFields, sha256: Sha256, size: Size, expiresInS },
  closed,
)
export type NewFileUpload = Static<typeof NewFileUpload>

export const FileQuery = Type.Object(
  {
    ...page,
    flowId: Type.Optional(Uuid({ description: 'Only files of this flow.' })),
    name: Type.Optional(Type.String({ maxLength: 1_000, description: 'Only the file of this very name.' })),
  },
  closed,
)
export type FileQuery = Static<typeof FileQuery>

export const FilePatch = Type.Object(
  {
    name: Type.Optional(Filename('Another name; it gets a number when the user has a file of that name.')),
    flowId: Type.Optional(Nullable(Uuid())),
    meta: Type.Optional(
      JsonObject({ description: 'Merged into the stored fields; a field that is null is removed.' }),
    ),
    expiresAt: Type.Optional(Nullable(Timestamp({ description: 'When it is gone; null: it stays.' }))),
  },
  { ...closed, minProperties: 1 },
)
export type FilePatch = Static<typeof FilePatch>

/** In bytes, as it is stored: with its user it must fit into an index. */
const MAX_NAME_BYTES = 1_500

/** @throws invalid_input for a name that is longer; before the bytes are taken */
export function requireShortName(name: string | undefined): void {
  if (name === undefined || Buffer.byteLength(encodeText(name)) <= MAX_NAME_BYTES) return
  throw new ThreadbaseError('invalid_input', `the name is longer than ${MAX_NAME_BYTES} bytes`, {
    field: 'filename',
    limit: MAX_NAME_BYTES,
  })
}

/** What is known of stored bytes. */
export type StoredBytes = {
  /** 64 lower-case hexadecimal digits. */
  sha256: string
  /** In bytes. */
  size: number
  /** The media type that the bytes were found to have. */
  mime: string
}

/** A file that belongs to a thread: what an agent made or a user added to it. */
export type Artifact = StoredBytes & {
  id: string
  userId: string
  threadId: string
  /** As it was given. Data, never a path: do not write to it without a look. */
  filename: string
  /** The sandbox session, the graph's run and the tool call that made it. */
  sessionId: string | null
  runId: string | null
  toolCallId: string | null
  meta: Record<string, unknown>
  createdAt: Date
}

/** A user's file outside threads. */
export type UserFile = StoredBytes & {
  id: string
  userId: string
  /** Unique among the user's files: a second `a.pdf` is called `a (1).pdf`. Data, never a path. */
  name: string
  flowId: string | null
  /** When it is gone; null: it stays. */
  expiresAt: Date | null
  meta: Record<string, unknown>
  createdAt: Date
}

/** Where to put bytes with one HTTP request, and what to do then. */
export type PendingUpload = {
  /** For the completion; also the id that the artifact or file will have. */
  token: string
  url: string
  method: 'PUT'
  /** To be sent as they are. */
  headers: Record<string, string>
  expiresAt: Date
}

/** What a look at the storage says of an artifact or a file. */
export type StoredHead = StoredBytes & {
  id: string
  /** False when the storage has no bytes for it: `threadbase blobs verify` lists such. */
  exists: boolean
  /** When the bytes were stored, or stored again; null when they are not there. */
  storedAt: Date | null
}
