import { posix } from 'node:path'

/** One import statement of a file: what it names, and whether only types come with it. */
export type Import = {
  file: string
  line: number
  target: string
  typeOnly: boolean
  /** As soon as the file is loaded, not when a statement of it runs. */
  atStart: boolean
}

const SLICES = [
  'identity',
  'audit',
  'threads',
  'messages',
  'configs',
  'transfer',
  'conversations',
  'checkpoints',
  'artifacts',
  'credentials',
  'search',
  'analyses',
  'gdpr',
  'usage',
  'flows',
  'runs',
  'jobs',
]
const PORTS = ['db', 'blobs', 'cache', 'bus', 'embeddings']

// Higher rooms import lower ones and their own. A room that is not here is refused: name it before it grows.
const LEVELS: Record<string, number> = {
  core: 0,
  'version.ts': 0,
  // what cache/ and bus/ share of Redis
  redis: 0.5,
  // locks and whole files, for all that keeps something in directories
  files: 0.5,
  ...Object.fromEntries(PORTS.map((port) => [port, 1])),
  config: 1.5,
  'config.ts': 2,
  'traces.ts': 2,
  ...Object.fromEntries(SLICES.map((slice) => [slice, 2])),
  http: 3,
  'open-database.ts': 2.5,
  'open-blobs.ts': 2.5,
  'open-embeddings.ts': 2.5,
  'open-conversations.ts': 2.5,
  'threadbase.ts': 3,
  'open-threadbase.ts': 3.5,
  'server.ts': 4,
  'index.ts': 5,
  langchain: 4.5,
  'langgraph.ts': 5,
  'langchain.ts': 5,
  cli: 5,
}

const DRIVERS: [driver: RegExp, adapters: RegExp][] = [
  // every pg type parser and session is one of pg, whichever engine answers
  [/^pg(-|$)/, /^db\/(postgres|pglite|driver|as-user|types)\.ts$/],
  [/^@electric-sql\//, /^db\/pglite-worker\.ts$/],
  [/^@(aws-sdk|smithy)\//, /^blobs\/s3(-[a-z]+)?\.ts$/],
  [/^(io)?redis$/, /^redis\/(client|connector)\.ts$/],
  [/^@opentelemetry\//, /^traces\.ts$/],
  // what asks models sees to time limits and keys
  [/^openai$/, /^conversations\/council\/models\.ts$/],
  [/^(@lat\.md\/|@huggingface\/tokenizers$|onnxruntime-)/, /^embeddings\/local(-[a-z]+)?\.ts$/],
  [/^prom-client$/, /^http\/(process-)?metrics\.ts$/],
]
const LOADS_SERVICES = /\/service\.ts$|^((open-)?threadbase|server)\.ts$/
// the AWS SDK takes half a second, which who keeps bytes in files need not wait for
const LOADED_WHEN_NEEDED = /^blobs\/s3\.ts$/
const ENTRY_POINTS = /^(index|server|cli\/main)\.ts$/
const SQL =
  /\bsql(<[^`]*>)?`|\bsql\.(raw|table|ref|id|join|lit)\(|\.(selectFrom|insertInto|updateTable|deleteFrom|mergeInto|with)\(['"(]|CompiledQuery/

/** The import and export-from statements of a file, static and dynamic, comments left out. */
export function readImports(file: string, text: string): Import[] {
  const code = withoutComments(text)
  const statements =
    /(?:^|[;\n])\s*(import|export)(\s+type\b)?([^;'"`]*?\bfrom)?\s*(['"])([^'"\n]+)\4|\bimport\(\s*(['"`])([^'"`\n]+)\6/g
  return [...code.matchAll(statements)].map((match) => {
    const [, , type, clause = '', , fixed, , dynamic] = match
    const names = /\{([^}]*)\}/.exec(clause)?.[1]
    const onlyTypes =
      names?.split(',').every((name) => name.trim() === '' || /^\s*type\s/.test(name)) ?? false
    const line = code.slice(0, (match.index ?? 0) + match[0].length).split('\n').length
    return {
      file,
      line,
      target: fixed ?? dynamic ?? '',
      typeOnly: type !== undefined || onlyTypes,
      atStart: dynamic === undefined,
    }
  })
}

/** Keeps line breaks, so that places stay right; leaves strings and templates alone. */
export function withoutComments(text: string): string {
  return text.replace(
    /('(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`)|\/\*[\s\S]*?\*\/|\/\/[^\n]*/g,
    (match, literal?: string) => literal ?? match.replace(/[^\n]/g, ''),
  )
}

/**
 * Where files break the rules of the design's section 1, one sentence each.
 * @param files text by path below src, tests left out
 */
export function findViolations(files: ReadonlyMap<string, string>): string[] {
  return [...files].flatMap(([file, text]) => [
    ...readImports(file, text).flatMap((one) => checkImport(one, files)),
    ...checkText(file, withoutComments(text)),
  ])
}

const roomOf = (file: string) => (file.includes('/') ? (file.split('/')[0] as string) : file)

function checkImport(
  { file, line, target, typeOnly, atStart }: Import,
  files: ReadonlyMap<string, string>,
): string[] {
  const at = `${file}:${line}`
  if (target.startsWith('.')) {
    const own = posix.join(posix.dirname(file), target)
    const problems = checkOwnImport(at, file, own, files)
    // all commands are known at the start, one of them runs: help waits for no service
    if (file.startsWith('cli/') && atStart && !typeOnly && LOADS_SERVICES.test(own))
      problems.push(`${at} loads ${own} at the start of every command`)
    if (LOADED_WHEN_NEEDED.test(own) && atStart && !typeOnly)
      problems.push(`${at} loads ${own} before it is known to be needed`)
    return problems
  }
  const problems: string[] = []
  for (const [driver, adapters] of DRIVERS) {
    if (driver.test(target) && !adapters.test(file)) problems.push(`${at} imports the driver ${target}`)
  }
  if (/^(fastify$|@fastify\/|fastify-)/.test(target) && !/^http\/|\/routes\.ts$/.test(file)) {
    problems.push(`${at} knows the HTTP framework (${target})`)
  }
  if (target === 'kysely' && !typeOnly && !holdsSql(file)) problems.push(`${at} imports the query builder`)
  return problems
}

function checkOwnImport(
  at: string,
  file: string,
  target: string,
  files: ReadonlyMap<string, string>,
): string[] {
  if (target.startsWith('..'))
    return target === '../package.json' ? [] : [`${at} imports ${target}, outside of src`]
  if (!files.has(target)) return [`${at} imports ${target}, which does not exist`]
  const [from, to] = [roomOf(file), roomOf(target)]
  const [above, below] = [LEVELS[from], LEVELS[to]]
  if (above === undefined) return [`${file} is in no known room`]
  if (from === to) return []
  if (below === undefined) return [`${target} is in no known room`]
  if (below > above) return [`${at} imports upwards: ${target}`]
  if (SLICES.includes(to)) {
    const open = from === 'http' ? /\/(routes|service|schema)\.ts$/ : /\/(service|schema)\.ts$/
    return open.test(target) ? [] : [`${at} reaches into another slice: ${target}`]
  }
  // two rooms of one level know nothing of each other
  return below === above && !(from === 'threadbase.ts' || to === 'config.ts')
    ? [`${at} imports sideways: ${target}`]
    : []
}

const holdsSql = (file: string) => /^db\/|\/repo\.ts$/.test(file)

function checkText(file: string, code: string): string[] {
  const problems: string[] = []
  if (/\bprocess\.env\b/.test(code) && !ENTRY_POINTS.test(file)) problems.push(`${file} reads process.env`)
  if (SQL.test(code) && !holdsSql(file)) problems.push(`${file} holds SQL`)
  return problems
}
