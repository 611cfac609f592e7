import { mkdir, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect } from 'vitest'
import { threadIdOf } from '../src/conversations/ids.ts'
import type {
  MoveLine,
  MoveOptions,
  MoveReport,
  WriteLine,
  WriteOptions,
  WriteReport,
} from '../src/conversations/move/schema.ts'
import { canonicalJson, parseJson } from '../src/core/json.ts'
import type { Message } from '../src/messages/schema.ts'
import { type CouncilFolderOptions, type MadeFile, makeCouncilFolder } from './council-folders.ts'
import { engines, makeTempDir, type TestDatabase } from './harness.ts'

export const counts = ({ moved, extended, known, skipped, failed }: MoveReport['usage']) => [
  moved,
  extended,
  known,
  skipped,
  failed,
]
export const user = (content: unknown, more: object = {}) => ({ role: 'user', content, ...more })
export const said = (n: number) => Array.from({ length: n }, (_, i) => user(`m${i}`))

async function readFiles(
  dir: string,
  read: (path: string) => Promise<string>,
): Promise<Record<string, string>> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true })
  const paths = entries
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name))
  const files = paths.map(async (path) => [path.slice(dir.length + 1), await read(path)] as const)
  return Object.fromEntries((await Promise.all(files)).sort())
}

/** Every file of a folder by path: its JSON, in one form. */
export const readFolder = (dir: string) =>
  readFiles(dir, async (path) => canonicalJson(parseJson(await readFile(path, 'utf8'))))

/** Every file by path, byte for byte, with its time. */
export const readFolderBytes = (dir: string) =>
  readFiles(dir, async (path) => `${(await stat(path)).mtimeMs} ${await readFile(path, 'base64')}`)

/** `parent` holds the folders of all tests, `dir` is that of this one. */
type Places = { store: TestDatabase; parent: string; dir: string }
export type MoveFixture = Places & ReturnType<typeof createHelpers>

/** Runs tests on both engines, with and without row level security: each on an empty store and an empty folder. */
export function describeMoves(title: string, tests: (fixture: MoveFixture) => void): void {
  for (const engine of engines) {
    for (const rls of ['off', 'enforce'] as const) {
      describe.skipIf(!engine.available)(`${title} on ${engine.name}, row level security ${rls}`, () => {
        const places = {} as Places
        const fixture: MoveFixture = Object.assign(places, createHelpers(places))
        let folders = 0
        beforeAll(async () => {
          fixture.store = await engine.open({ rls })
          fixture.parent = await makeTempDir()
        })
        afterAll(async () => {
          await fixture.store?.close()
          await rm(fixture.parent, { recursive: true, force: true })
        })
        beforeEach(async () => {
          await fixture.emptyStore()
          fixture.dir = join(fixture.parent, `folder ${++folders}`)
          await mkdir(fixture.dir)
        })
        tests(fixture)
      })
    }
  }
}

function createHelpers(fixture: Places) {
  const table = (name: string) => sql.id(fixture.store.database.schema, name)
  return {
    async emptyStore(): Promise<void> {
      const { db } = fixture.store.database
      await sql`delete from ${table('threads')}`.execute(db)
      await sql`delete from ${table('usage')}`.execute(db)
    },

    make: (options?: CouncilFolderOptions): Promise<MadeFile[]> => makeCouncilFolder(fixture.dir, options),

    async put(path: string, value: unknown, time?: Date): Promise<void> {
      const file = join(fixture.dir, path)
      await mkdir(dirname(file), { recursive: true })
      await writeFile(file, typeof value === 'string' ? value : JSON.stringify(value))
      if (time !== undefined) await utimes(file, time, time)
    },

    async move(
      options: MoveOptions = {},
      from = fixture.dir,
    ): Promise<{ report: MoveReport; lines: MoveLine[] }> {
      const lines: MoveLine[] = []
      const onFile = (line: MoveLine) => lines.push(line)
      const report = await fixture.store.tb.conversationMove.migrate(from, { ...options, onFile })
      return { report, lines: lines.sort((a, b) => (a.file < b.file ? -1 : 1)) }
    },

    async write(
      to: string,
      options: WriteOptions = {},
    ): Promise<{ report: WriteReport; lines: WriteLine[] }> {
      const lines: WriteLine[] = []
      const onFile = (line: WriteLine) => lines.push(line)
      const report = await fixture.store.tb.conversationMove.export(to, { ...options, onFile })
      return { report, lines }
    },

    messagesOf: async (userId: string, id: string): Promise<Message[]> =>
      (await fixture.store.tb.messages.list({ userId }, threadIdOf(id), { limit: 200 })).items,

    /** All that there is. */
    async stored(): Promise<unknown> {
      const { db } = fixture.store.database
      const threads = await sql`
        select t.user_id, t.id, t.title, t.meta, t.last_seq, t.created_at, t.updated_at,
               (select json_agg(json_build_array(m.seq, m.message_id, m.parent_seq, m.role, m.content, m.meta, m.created_at)
                                order by m.seq)
                  from ${table('messages')} m where m.user_id = t.user_id and m.thread_id = t.id) as messages
          from ${table('threads')} t order by 1, 2`.execute(db)
      const usage = await sql`select * from ${table('usage')} order by user_id`.execute(db)
      return [threads.rows, usage.rows]
    },
  }
}

/** That the lines of a report are those of the files that were made. */
export function checkLines(made: MadeFile[], lines: MoveLine[]): void {
  expect(lines.map(({ file, status }) => [file, status])).toEqual(
    made.map(({ path, status }) => [path, status]).sort(([a = ''], [b = '']) => (a < b ? -1 : 1)),
  )
  for (const { path, messages, reason, at } of made) {
    const line = lines.find(({ file }) => file === path)
    expect(line?.messages ?? 0).toBe(messages)
    if (reason !== undefined) expect(line?.reason).toContain(reason)
    if (at !== undefined) expect([path, `${line?.at?.line}:${line?.at?.column}`]).toEqual([path, at])
  }
}
