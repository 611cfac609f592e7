import { readFileSync } from 'node:fs'
import { PassThrough } from 'node:stream'
import { fileURLToPath } from 'node:url'
import type { Command } from 'commander'
import { pino } from 'pino'
import { type CliStreams, createProgram } from '../src/cli/run.ts'
import type { Variable } from '../src/config/variable.ts'
import { VARIABLES } from '../src/config/variables.ts'
import { buildApp } from '../src/http/app.ts'

const src = fileURLToPath(new URL('../src/', import.meta.url))
const MADE = '<!-- Made by `npm run docs` from the code; change the code instead. -->'

/** The pages of docs/ that are made from the code, by file name. */
export async function referencePages(): Promise<Record<string, string>> {
  return {
    'configuration.md': configurationPage(),
    'cli.md': cliPage(),
    'http-api.md': await httpPage(),
    'library.md': libraryPage(),
  }
}

function configurationPage(): string {
  const rows = Object.values(VARIABLES as Record<string, Variable>).map(
    ({ name, default: fallback, description }) => {
      const value = fallback === undefined ? 'none' : `\`${fallback}\``
      return `| \`${name}\` | ${value} | ${description.replaceAll('|', '\\|')} |`
    },
  )
  return `# Configuration

${MADE}

Threadbase reads these environment variables. An empty one counts as not set. A bad value stops the start and is
named; the value of a secret is never printed.

| variable | default | what it does |
|---|---|---|
${rows.join('\n')}
`
}

function cliPage(): string {
  const streams = { env: {}, stdin: process.stdin, stdout: new PassThrough(), stderr: new PassThrough() }
  const program = createProgram(streams as unknown as CliStreams).program
  return `# Command line

${MADE}

${describeCommand(program, '').join('\n')}`
}

function describeCommand(command: Command, parent: string): string[] {
  const name = `${parent} ${command.name()}`.trim()
  command.configureHelp({ helpWidth: 100 })
  const help = command.helpInformation().trim()
  const children = command.commands.flatMap((child) => describeCommand(child, name))
  return [`## ${name}`, '', '```', help, '```', '', ...children]
}

type Operation = {
  summary: string
  description?: string
  parameters?: { name: string; in: string; required?: boolean; schema: JsonSchema; description?: string }[]
  requestBody?: { content: Record<string, { schema: JsonSchema }> }
  responses: Record<string, unknown>
}
type JsonSchema = {
  type?: string
  enum?: unknown[]
  anyOf?: JsonSchema[]
  items?: JsonSchema
  properties?: Record<string, JsonSchema>
  required?: string[]
  minimum?: number
  maximum?: number
  maxLength?: number
  maxItems?: number
  default?: unknown
  description?: string
}

async function httpPage(): Promise<string> {
  const absent = () => {
    throw new Error('the reference is made without services')
  }
  const services = new Proxy({}, { get: () => new Proxy({}, { get: () => absent }) })
  const app = await buildApp(services as never, {
    uploadLimitBytes: 1,
    bodyLimitBytes: 1,
    log: pino({ level: 'silent' }),
    auth: { mode: 'accounts', registration: true, proxySecret: undefined },
  })
  await app.ready()
  const { paths = {} } = app.swagger() as { paths?: Record<string, Record<string, Operation>> }
  await app.close()
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => describeOperation(path, method, operation)),
  )
  return `# HTTP API

${MADE}

The server gives the same as an OpenAPI document at \`/openapi.json\` and to look at and try at \`/docs\`.
Errors have the shape \`{"error": {"code", "message", "details"?, "request_id"}}\`; see [errors](errors.md).

${operations.join('\n')}`
}

function describeOperation(path: string, method: string, operation: Operation): string {
  const lines = [
    `## ${method.toUpperCase()} ${path}`,
    '',
    `${operation.summary}. ${operation.description ?? ''}`.trim(),
    '',
  ]
  const query = operation.parameters?.filter((parameter) => parameter.in === 'query') ?? []
  if (query.length > 0) {
    lines.push('| query | type | |', '|---|---|---|')
    for (const { name, schema, description } of query) lines.push(field(name, schema, false, description))
    lines.push('')
  }
  const body = Object.values(operation.requestBody?.content ?? {})[0]?.schema
  const object = body?.anyOf?.find(({ properties }) => properties !== undefined) ?? body
  if (object?.properties !== undefined) {
    lines.push('| body | type | |', '|---|---|---|')
    for (const [name, schema] of Object.entries(object.properties)) {
      lines.push(field(name, schema, object.required?.includes(name) ?? false))
    }
    lines.push('')
  }
  const statuses = Object.keys(operation.responses).filter((status) => !status.endsWith('XX'))
  return [...lines, `Answers ${statuses.join(' or ')}.`, ''].join('\n')
}

function field(name: string, schema: JsonSchema, required: boolean, text = schema.description): string {
  return `| \`${name}\`${required ? ' (required)' : ''} | ${typeOf(schema)} | ${text ?? ''} |`
}

function typeOf(schema: JsonSchema): string {
  if (schema.enum !== undefined) return schema.enum.map((value) => `\`${value}\``).join(', ')
  if (schema.anyOf !== undefined) return schema.anyOf.map(typeOf).join(' or ')
  const limits = [
    schema.minimum !== undefined && schema.minimum > 0 && `≥ ${schema.minimum}`,
    schema.maximum !== undefined && schema.maximum < Number.MAX_SAFE_INTEGER && `≤ ${schema.maximum}`,
    schema.maxLength !== undefined && `≤ ${schema.maxLength} characters`,
    schema.default !== undefined && `default ${schema.default}`,
  ].filter(Boolean)
  const name = schema.type ?? 'any JSON'
  return limits.length === 0 ? name : `${name}, ${limits.join(', ')}`
}

/** Where the functions of each service are. */
const SERVICES: Record<string, string | string[]> = {
  'tb.threads': 'threads/service.ts',
  'tb.messages': 'messages/service.ts',
  'tb.configs': 'configs/service.ts',
  'tb.artifacts': ['artifacts/service.ts', 'artifacts/bytes/readers.ts'],
  'tb.files': ['artifacts/files/service.ts', 'artifacts/bytes/readers.ts'],
  'tb.upkeep': 'artifacts/upkeep/service.ts',
  'tb.transfer': 'transfer/service.ts',
  'tb.council': 'conversations/council/council.ts',
  'tb.conversationMove': 'conversations/move/service.ts',
  'tb.identity.users': 'identity/users/service.ts',
  'tb.identity.signIn': 'identity/sign-in.ts',
  'tb.identity.sessions': 'identity/sessions/service.ts',
  'tb.identity.keys': 'identity/keys/service.ts',
  'tb.credentials.apiKeys': 'credentials/api-keys/service.ts',
  'tb.credentials.forUser(userId)': 'credentials/resolver.ts',
  'tb.variables': 'credentials/variables/service.ts',
  'tb.sessions': 'analyses/sessions/service.ts',
  'tb.analyses': 'analyses/service.ts',
  'tb.search': 'search/service.ts',
  'tb.documents': 'checkpoints/store/documents.ts',
  'tb.audit': 'audit/service.ts',
  'tb.gdpr': 'gdpr/service.ts',
}

/** Services whose functions are described by their type. */
const INTERFACES: Record<string, [file: string, type: string]> = {
  'tb.conversations': ['conversations/store.ts', 'ConversationStore'],
  'tb.conversations.turns': ['conversations/store.ts', 'TurnStore'],
  'tb.usage': ['usage/schema.ts', 'UsageService'],
  'tb.embeddings': ['search/embed/service.ts', 'EmbeddingService'],
}

/** Where the methods of each class are. */
const CLASSES = {
  'tb.checkpointer': 'checkpoints/saver.ts',
  'tb.store': 'checkpoints/store/store.ts',
}

/** Where the types of the library are. */
const SHAPES: (string | [file: string, ...names: string[]])[] = [
  'threads/schema.ts',
  'messages/schema.ts',
  'search/schema.ts',
  'configs/schema.ts',
  'artifacts/schema.ts',
  ['artifacts/bytes/readers.ts', 'PresignOptions'],
  ['blobs/blobs.ts', 'ReadOptions'],
  ['artifacts/upkeep/collect.ts', 'CollectOptions', 'CollectReport'],
  ['artifacts/upkeep/verify.ts', 'VerifyOptions', 'VerifyReport', 'BlobProblem'],
  'transfer/schema.ts',
  ['conversations/council/council.ts', 'AskOptions'],
  ['conversations/store.ts', 'ListOptions', 'Turn'],
  [
    'conversations/move/schema.ts',
    'MoveOptions',
    'MoveReport',
    'MoveLine',
    'WriteOptions',
    'WriteReport',
    'WriteLine',
    'BackupOptions',
    'BackupReport',
  ],
  'identity/schema.ts',
  'identity/service.ts',
  'credentials/schema.ts',
  [
    'analyses/schema.ts',
    'Session',
    'AnalysisContent',
    'ChainLink',
    'Analysis',
    'AnalysisVersion',
    'StoredVersion',
    'WriteOptions',
  ],
  'audit/schema.ts',
  'gdpr/schema.ts',
  ['gdpr/service.ts', 'EraseOptions', 'ExportOptions', 'UserExport'],
  ['gdpr/export/export.ts', 'ExportReport', 'ExportProgress'],
  ['usage/schema.ts', 'Usage', 'UsageReceipt', 'UsageTotal', 'UsageRecord'],
  ['embeddings/embedder.ts', 'Embedder', 'EmbedOptions'],
  ['search/embed/status.ts', 'EmbeddingStatus', 'ModelStatus'],
  ['search/embed/service.ts', 'WaitOptions'],
  ['search/embed/backfill.ts', 'BackfillOptions', 'BackfillReport'],
  ['search/vectors/build.ts', 'BuildOptions', 'BuildReport'],
  ['checkpoints/saver.ts', 'SaverOptions'],
  ['checkpoints/codec.ts', 'EncryptionOptions'],
  ['checkpoints/upkeep/service.ts', 'PruneOptions', 'Removed', 'StateThread'],
  ['checkpoints/store/store.ts', 'StoreOptions', 'StoreCall'],
  ['checkpoints/store/shared.ts', 'StoreSettings', 'StoreTtl'],
  ['checkpoints/store/embedding.ts', 'StoreIndex'],
  ['checkpoints/store/operations.ts', 'StorePut'],
  ['checkpoints/store/documents.ts', 'NewDocument', 'FoundDocument', 'DocumentQuery', 'DocumentChoice'],
]

// a docstring right before a function of a service's factory
const FUNCTION =
  /\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\n( {2,4})(?:async )?(?:function )?(\w+)(: )?(\([\s\S]*?)(?: =>| \{\n)/g

/** Those with a docstring, but for the factory's helpers and what is marked as internal. */
function describeService(name: string, files: string | string[]): string {
  return `## ${name}\n\n${[files]
    .flat()
    .map((file) => describeFunctions(name, file))
    .join('\n')}`
}

function describeFunctions(name: string, file: string): string {
  const text = readFileSync(`${src}${file}`, 'utf8')
  const isReturned = (indent: string, member: string) =>
    indent.length === 4 || new RegExp(`^ {4}${member},$`, 'm').test(text)
  const members = [...text.matchAll(FUNCTION)]
    .filter(
      ([, doc = '', indent = '', member = '']) => isReturned(indent, member) && !doc.includes('@internal'),
    )
    .map(([, doc = '', , member = '', , signature = '']) => describeMember(name, member, signature, doc))
  if (members.length === 0) throw new Error(`found no function in ${file}`)
  return members.join('\n')
}

// a docstring right before a method of a class that others may call
const METHOD =
  /\n {2}\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\n {2}(?:override )?(?:async )?\*?(\w+)(?:<\w+ extends [\w[\]]+>)?(\([\s\S]*?) \{\n/g

function describeClass(name: string, file: string): string {
  const text = readFileSync(`${src}${file}`, 'utf8')
  const members = [...text.matchAll(METHOD)].map(([, doc = '', member, signature = '']) => {
    return describeMember(name, member as string, signature, doc)
  })
  if (members.length === 0) throw new Error(`found no method in ${file}`)
  return `## ${name}\n\n${members.join('\n')}`
}

// a docstring right before a function of a type
const MEMBER = /\n {2}\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\n {2}(\w+)(\([\s\S]*?\): [^\n]+)(?=\n)/g

function describeInterface(name: string, [file, type]: [string, string]): string {
  const text = readFileSync(`${src}${file}`, 'utf8')
  const [, body = ''] = new RegExp(`export type ${type} = \\{([\\s\\S]*?\\n)\\}`).exec(text) ?? []
  const members = [...body.matchAll(MEMBER)].map(([, doc = '', member = '', signature = '']) =>
    describeMember(name, member, signature, doc),
  )
  if (members.length === 0) throw new Error(`found no function of ${type} in ${file}`)
  return `## ${name}\n\n${members.join('\n')}`
}

function describeMember(of: string, member: string, signature: string, doc: string): string {
  const call = signature.replace(/\s+/g, ' ').replace('( ', '(').replace(/,? \)/, ')')
  return `### ${member}\n\n\`\`\`ts\n${of}.${member}${call}\n\`\`\`\n\n${plain(doc)}\n`
}

function libraryPage(): string {
  const classes = Object.entries(CLASSES).map(([name, file]) => describeClass(name, file))
  const services = Object.entries(SERVICES).map(([name, file]) => describeService(name, file))
  const interfaces = Object.entries(INTERFACES).map(([name, place]) => describeInterface(name, place))
  const shapes = SHAPES.map((shape) => {
    const [file, ...names] = typeof shape === 'string' ? [shape] : shape
    return describeTypes(readFileSync(`${src}${file}`, 'utf8'), names)
  })
  return `# Library

${MADE}

\`\`\`ts
import { openThreadbase } from 'threadbase'

await using tb = await openThreadbase()   // from the environment, or { databaseUrl } or { dataDir }
\`\`\`

A function that reads and writes rows of a user takes a scope \`{ userId }\` first. One that is for operators takes an
actor instead, \`{ userId, via: 'library' }\`, whom the audit log names: the library trusts its application, which must
have checked who that is. Failures are \`ThreadbaseError\`s with a \`code\`; see [errors](errors.md). What each function
takes beyond that is checked; its fields are those of the [HTTP API](http-api.md) in camelCase.

${[...services, ...interfaces].join('\n')}
The next two are LangGraph's \`BaseCheckpointSaver\` and \`BaseStore\`, and more; see
[keep LangGraph's state](keep-langgraph-state.md). \`tb.forUser(id)\` has them for one user.

${classes.join('\n')}
## Types

${shapes.join('\n')}`
}

const TYPE =
  /(?:\/\*\*(?:(?!\*\/)[\s\S])*\*\/\n)?export type (\w+) = (?:\w+ & )?\{(?:[^\n]*\}\n|[\s\S]*?\n\})/g

/** Those of the names; without names those that have a docstring. */
function describeTypes(text: string, names: string[]): string {
  const found = [...text.matchAll(TYPE)].filter(([whole, name = '']) =>
    names.length === 0 ? whole.startsWith('/**') : names.includes(name),
  )
  if (found.length < names.length) throw new Error(`found not all types of ${names}`)
  return found.map(([whole, name]) => `### ${name}\n\n\`\`\`ts\n${whole.trim()}\n\`\`\`\n`).join('\n')
}

function plain(doc: string): string {
  return doc
    .replace(/\n\s*\* ?/g, '\n')
    .replace(/\{@link (\w+)\}/g, '`$1`')
    .replace(/@throws /g, '\nFails with: ')
    .replace(/@param (\w+) /g, '\nTakes `$1`: ')
    .replace(/@returns /g, '\nGives: ')
    .trim()
}
