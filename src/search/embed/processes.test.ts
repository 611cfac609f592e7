import { rm } from 'node:fs/promises'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { type Child, runChild } from '../../../test/child.ts'
import { newTestEmbedder } from '../../../test/embedders.ts'
import { countClaims, embeddingsOf, until, untilEmbedded } from '../../../test/embeddings.ts'
import { engines, makeTempDir, postgresUrl, type TestDatabase, templateFile } from '../../../test/harness.ts'

type Line = {
  asked?: string[]
  given?: string[]
  ready?: number
  appended?: number
  waiting?: number
  done?: number
}

const children: Child[] = []
const start = (input: object): Child => {
  const child = runChild('embed.ts', input)
  children.push(child)
  return child
}
afterAll(async () => {
  for (const child of children) await child.kill()
})

/** Lines until one is as wanted. */
async function readUntil(child: Child, wanted: (line: Line) => boolean): Promise<Line[]> {
  const lines: Line[] = []
  for (;;) {
    const line = (await child.nextLine()) as Line | undefined
    if (line === undefined) throw new Error('the child has ended')
    lines.push(line)
    if (wanted(line)) return lines
  }
}

/** Ends it in good order. @returns what it had been given */
async function end(child: Child): Promise<string[]> {
  child.process.stdin?.end()
  const lines = (await child.rest()) as Line[]
  expect(await child.exited).toBe(0)
  return lines.flatMap(({ given }) => given ?? [])
}

describe.skipIf(postgresUrl === null)('several processes that embed', () => {
  const engine = engines.find(({ name }) => name === 'postgres')
  const scope = { userId: 'local' }
  let opened: TestDatabase
  let schema: string
  beforeAll(async () => {
    // the columns are there; this process embeds nothing
    opened = (await engine?.open({
      embedder: newTestEmbedder(),
      background: false,
      rls: 'off',
    })) as TestDatabase
    schema = opened.database.schema
  })
  afterAll(() => opened?.close())
  const append = async (count: number) => {
    const { id } = await opened.tb.threads.create(scope)
    const messages = Array.from({ length: count }, (_, i) => ({
      role: 'user' as const,
      content: `text ${i}`,
    }))
    await opened.tb.messages.append(scope, id, messages)
    return id
  }
  let thread: string
  afterEach(() => opened.tb.threads.delete(scope, thread))

  test('share the work, and do nothing twice', async () => {
    thread = await append(400)
    const pair = [1, 2].map(() => start({ url: postgresUrl, schema, delayMs: 30 }))
    await untilEmbedded(opened.database, scope.userId)
    const [first = [], second = []] = await Promise.all(pair.map(end))
    expect(first.length).toBeGreaterThan(0)
    expect(second.length).toBeGreaterThan(0)
    expect([...first, ...second].toSorted()).toEqual(
      Array.from({ length: 400 }, (_, i) => `text ${i}`).toSorted(),
    )
    expect(await countClaims(opened.database)).toBe(0)
  })

  test('lose nothing with one that is killed: others take over what it was at', async () => {
    thread = await append(40)
    const killed = start({ url: postgresUrl, schema, delayMs: 60_000, leaseS: 1.5 })
    await readUntil(killed, ({ asked }) => asked !== undefined)
    expect(await countClaims(opened.database)).toBe(8)
    await killed.kill()
    const other = start({ url: postgresUrl, schema, leaseS: 1.5 })
    await untilEmbedded(opened.database, scope.userId)
    await until(async () => (await countClaims(opened.database)) === 0, 'no claim is left')
    expect(await end(other)).toHaveLength(40)
  })

  test('keep what they are at for as long as they live', async () => {
    thread = await append(8)
    // three times the lease
    const slow = start({ url: postgresUrl, schema, delayMs: 3_000, leaseS: 1 })
    await readUntil(slow, ({ asked }) => asked !== undefined)
    const other = start({ url: postgresUrl, schema, leaseS: 1 })
    await untilEmbedded(opened.database, scope.userId)
    expect(await end(other)).toEqual([])
    expect(await end(slow)).toHaveLength(8)
  })

  test('give back at once what they are at when they are closed', async () => {
    thread = await append(8)
    const slow = start({ url: postgresUrl, schema, delayMs: 60_000, leaseS: 60 })
    await readUntil(slow, ({ asked }) => asked !== undefined)
    const started = performance.now()
    expect(await end(slow)).toEqual([])
    expect(performance.now() - started).toBeLessThan(5_000)
    expect(await countClaims(opened.database)).toBe(0)
    expect((await embeddingsOf(opened.database, scope.userId)).every(({ model }) => model === null)).toBe(
      true,
    )
  })
})

test('a process on the embedded store that is killed loses nothing', async () => {
  const dataDir = await makeTempDir()
  try {
    const input = { dataDir, templateFile, leaseS: 1 }
    const killed = start({ ...input, append: 40, delayMs: 60_000 })
    await readUntil(killed, ({ asked }) => asked !== undefined)
    await killed.kill()
    const again = start(input)
    const lines = await readUntil(again, ({ waiting }) => waiting === 0)
    expect(lines.at(-1)).toMatchObject({ waiting: 0, done: 40 })
    expect(lines.flatMap(({ given }) => given ?? [])).toHaveLength(40)
    await end(again)
  } finally {
    await rm(dataDir, { recursive: true, force: true })
  }
})
