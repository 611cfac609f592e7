import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, test } from 'vitest'
import { toStorableText } from '../../src/core/json.ts'
import { dialoguesFile, readDialogues, type SourceMessage } from '../dialogues.ts'
import { makeTempDir, newSchemaName, postgresUrl } from '../harness.ts'
import { childEnv, INSTALL_MS, installedPackage } from './installed.ts'

const run = promisify(execFile)

const file = dialoguesFile()
const lines = readDialogues(file)
const messageCount = lines.reduce((sum, { messages }) => sum + messages.length, 0)

type Store = { name: string; available: boolean; env: () => Promise<Record<string, string>> }

const stores: Store[] = [
  { name: 'embedded', available: true, env: async () => ({ DATA_DIR: await makeTempDir() }) },
  {
    name: 'postgres',
    available: postgresUrl !== null,
    env: async () => ({ DATABASE_URL: postgresUrl ?? '', DATABASE_SCHEMA: newSchemaName() }),
  },
]

describe.each(stores.filter(({ available }) => available))('real dialogues on $name', ({ env }) => {
  let command: string
  let environment: Record<string, string | undefined>

  beforeAll(async () => {
    command = (await installedPackage()).command
    environment = { ...childEnv, LOG_LEVEL: 'warn', ...(await env()) }
  }, INSTALL_MS)

  test('go in through the command line', async () => {
    const first = await run(command, ['import', file], { env: environment })
    expect(first.stdout).toMatch(new RegExp(`^imported +${lines.length.toLocaleString('en')}$`, 'm'))
    expect(first.stdout).toMatch(/^refused +0$/m)
    const again = await run(command, ['import', file], { env: environment })
    expect(again.stdout).toMatch(/^imported +0$/m)
    expect(again.stdout).toMatch(new RegExp(`^already there +${lines.length.toLocaleString('en')}$`, 'm'))
  })

  test('come back through HTTP, every message as it was', async () => {
    const server = await serve(command, environment)
    try {
      const threads = await readAll(server.url, '/api/threads?limit=100&include_archived=true')
      expect(threads).toHaveLength(lines.length)
      const found: unknown[][] = []
      for (const thread of threads) {
        const messages = await readAll(server.url, `/api/threads/${thread.id}/messages?limit=200`)
        expect(messages.map(({ seq }) => seq)).toEqual(messages.map((_, i) => i + 1))
        found.push([thread.title, ...messages.map(toSource)])
      }
      const wanted = lines.map(({ title, messages }) => [titleOf(title), ...messages.map(pickSource)])
      expect(sortByText(found)).toEqual(sortByText(wanted))
      expect(found.flatMap((conversation) => conversation.slice(1))).toHaveLength(messageCount)
    } finally {
      await server.stop()
    }
  })

  test('come back through the export, every line as equal JSON', async () => {
    const { stdout } = await run(command, ['export'], { env: environment, maxBuffer: 2 ** 30 })
    const exported = stdout.split('\n').filter((line) => line !== '')
    expect(sortByText(exported.map((line) => JSON.parse(line)))).toEqual(sortByText(lines))
  })
})

type Item = Record<string, unknown> & { meta: { openai?: { tool_call_id?: string } } }

async function readAll(url: string, path: string): Promise<Item[]> {
  const items: Item[] = []
  let cursor: string | null = ''
  while (cursor !== null) {
    const answer = await fetch(`${url}${path}${cursor === '' ? '' : `&cursor=${cursor}`}`)
    expect(answer.status).toBe(200)
    const page = (await answer.json()) as { items: Item[]; next_cursor: string | null }
    items.push(...page.items)
    cursor = page.next_cursor
  }
  return items
}

/** What HTTP says of a message, in the words of the file. */
function toSource({ role, content, tool_input, meta }: Item) {
  return { role, content, tool_calls: tool_input ?? undefined, tool_call_id: meta.openai?.tool_call_id }
}

function pickSource({ role, content = null, tool_calls, tool_call_id }: SourceMessage) {
  return {
    role: roleOf(role),
    content,
    tool_calls: isCalls(tool_calls) ? tool_calls : undefined,
    tool_call_id,
  }
}

// a title is plain text: what it cannot hold is replaced, and the line as it was is kept for the export
function titleOf(title: unknown): string | null {
  if (typeof title !== 'string') return null
  // by characters, as the database counts them
  return [...toStorableText(title)].slice(0, 500).join('')
}

// OpenAI's names for two of our roles
const roleOf = (role: string) => (role === 'developer' ? 'system' : role === 'function' ? 'tool' : role)
const isCalls = (value: unknown) => Array.isArray(value) && value.length > 0

function sortByText<T>(values: T[]): T[] {
  return values
    .map((value) => ({ value, key: JSON.stringify(value, sortedKeys) }))
    .sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0))
    .map(({ value }) => value)
}

function sortedKeys(_key: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
}

async function serve(command: string, env: Record<string, string | undefined>) {
  const child = spawn(command, ['serve', '--port', '0'], { env, stdio: ['ignore', 'pipe', 'inherit'] })
  const url = await new Promise<string>((resolve, reject) => {
    let text = ''
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk
      const found = /listening on (\S+)/.exec(text)?.[1]
      if (found !== undefined) resolve(found)
    })
    child.once('exit', (code) => reject(new Error(`serve ended with code ${code}`)))
  })
  return {
    url,
    stop: async () => {
      child.kill('SIGTERM')
      await once(child, 'exit')
    },
  }
}
