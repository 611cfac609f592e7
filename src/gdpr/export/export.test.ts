import { randomBytes, randomUUID } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'
import { emptyCheckpoint, uuid6 } from '@langchain/langgraph-checkpoint'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ODD_NAMES } from '../../../test/bytes.ts'
import { engines, openServices, TEST_KEY, type TestDatabase } from '../../../test/harness.ts'
import { sha256Of } from '../../../test/uploads.ts'
import { storeEverything, TEST_VECTORS } from '../../../test/user-rows.ts'
import { unzip } from '../../../test/zip.ts'
import { openFiles } from '../../blobs/files.ts'
import { createUrlSigner } from '../../blobs/signed-urls.ts'
import { ThreadbaseError } from '../../core/errors.ts'
import { parseJson } from '../../core/json.ts'
import type { Threadbase } from '../../threadbase.ts'
import { ERASED_TABLES, KEPT_TABLES, TABLES_OF_BYTES } from '../erase/tables.ts'
import { idInName, safeName } from './names.ts'
import { EXPORTED, EXPORTED_OTHERWISE, LEFT_OUT } from './tables.ts'

const ROOT = { userId: 'root', via: 'library' } as const
const newUser = () => ({ userId: `u-${randomUUID()}` })

// biome-ignore lint/suspicious/noExplicitAny: what is in the archive is checked by the tests themselves
type Any = any
type Unpacked = {
  files: Map<string, Buffer>
  manifest: Any
  lines(name: string): Any[]
}

async function exportOf(tb: Threadbase, scope: { userId: string }): Promise<Unpacked> {
  const { stream, report } = await tb.gdpr.export(scope, ROOT)
  const files = await unzip(await buffer(stream))
  await report
  return {
    files,
    manifest: JSON.parse(String(files.get('manifest.json'))),
    lines: (name) =>
      String(files.get(`${name}.jsonl`))
        .split('\n')
        .slice(0, -1)
        .map((line) => parseJson(line) as Any),
  }
}

for (const engine of engines) {
  describe.skipIf(!engine.available)(`handing over a user's data, on ${engine.name}`, () => {
    let opened: TestDatabase
    let tb: Threadbase
    let dir: string
    beforeAll(async () => {
      dir = join(tmpdir(), `threadbase-test-${randomUUID()}`)
      const signer = createUrlSigner(randomBytes(32))
      const blobs = openFiles({ dir, signer: async () => signer })
      opened = await engine.open({ store: TEST_VECTORS, ports: { blobs } })
      tb = opened.tb
    })
    afterAll(() => opened?.close())

    test('every table with rows of users is exported or left out on purpose', () => {
      const known = [
        ...Object.values(EXPORTED).map(({ table }) => table),
        ...EXPORTED_OTHERWISE,
        ...Object.keys(LEFT_OUT),
      ]
      const all = [...ERASED_TABLES.map(({ name }) => name), ...TABLES_OF_BYTES, ...KEPT_TABLES]
      expect(known.toSorted()).toEqual(all.toSorted())
    })

    test('has a line for each row of the user, none of another, and what the manifest says', async () => {
      const [scope, other] = [newUser(), newUser()]
      for (const { userId } of [scope, other]) await storeEverything(opened, userId)
      const { files, manifest, lines } = await exportOf(tb, scope)
      for (const { table, file } of Object.values(EXPORTED)) {
        const { rows } = await sql<{ n: number }>`
          select count(*)::int as n from ${sql.table(table)} where user_id = ${scope.userId}`.execute(
          opened.database.db,
        )
        const found = lines(file.replace('.jsonl', ''))
        // the tables that storeEverything does not reach are noticed here
        expect(rows[0]?.n, table).toBeGreaterThan(0)
        expect(found.length, table).toBe(rows[0]?.n)
      }
      expect(lines('provider_keys')).toHaveLength(1)
      expect(lines('variables')).toHaveLength(1)
      expect(JSON.parse(String(files.get('account.json')))).toMatchObject({
        id: scope.userId,
        provider: 'proxy',
        has_password: false,
      })
      expect(manifest).toMatchObject({
        format: 'threadbase-user-export',
        version: 1,
        user_id: scope.userId,
        missing: [],
        consistency: expect.stringMatching(engine.name === 'postgres' ? /^snapshot/ : /^pages/),
      })
      const named = manifest.files.map(({ path }: Any) => path)
      expect([...files.keys()]).toEqual([...named, 'manifest.json'])
      for (const { path, bytes, sha256, records } of manifest.files) {
        const content = files.get(path) as Buffer
        expect([content.length, sha256Of(content)], path).toEqual([bytes, sha256])
        if (records !== undefined) expect(String(content).split('\n').length - 1, path).toBe(records)
      }
      const everything = [...files.values()].map(String).join('\n')
      expect(everything).not.toContain(other.userId)
      // every file that it names is explained
      for (const path of named.slice(1).filter((name: string) => !name.includes('/')))
        expect(String(files.get('README.txt'))).toContain(path)
    })

    test('odd texts and numbers come out as they went in', async () => {
      const scope = newUser()
      const odd = 'NUL \0, half \ud800 of a pair, \uffff0041, 😀, "quotes"\r\n\u2028'
      const { id } = await tb.threads.create(scope, { meta: { [odd]: odd } })
      const content = parseJson('{"n":12345678901234567890,"e":1e400,"z":-0}') as object
      await tb.messages.append(scope, id, [
        { role: 'user', content: odd, meta: { odd } },
        { role: 'tool', content, toolName: 't', toolInput: { odd }, toolOutput: [odd] },
      ])
      await tb.forUser(scope.userId).store.put(['a', 'b.c'], 'k', { odd })
      await tb.variables.create(scope, ROOT, { name: 'n', value: '😀 ok', type: 'generic' })
      const { lines } = await exportOf(tb, scope)
      expect(lines('threads')[0].meta).toEqual({ [odd]: odd })
      const [first, second] = lines('messages')
      expect(first).toMatchObject({ content: odd, meta: { odd }, seq: 1 })
      expect(JSON.stringify(second.content)).toBe('{"n":12345678901234567890,"e":1e400,"z":-0}')
      expect(second).toMatchObject({ tool_input: { odd }, tool_output: [odd], parent_seq: 1 })
      expect(lines('store')[0]).toMatchObject({ namespace: ['a', 'b.c'], key: 'k', value: { odd } })
      expect(lines('variables')[0]).toMatchObject({ name: 'n', value: '😀 ok' })
    })

    test('no secret is in it', async () => {
      const username = `s-${randomUUID()}`
      const { id } = await tb.identity.users.create(ROOT, { username, password: 'a long password' })
      const scope = { userId: id }
      const { key } = await tb.identity.keys.create(scope, ROOT, { name: 'k' })
      await tb.credentials.apiKeys.put(scope, ROOT, 'openai', { apiKey: 'sk-0123456789abcdefghij' })
      const value = 'credential-0123456789-0123456789-0123456789'
      await tb.variables.create(scope, ROOT, { name: 'n', value })
      const { files, lines } = await exportOf(tb, scope)
      const everything = [...files.values()].map(String).join('\n')
      for (const secret of [key, key.slice(10), '$2b$', 'a long password', 'sk-0123456789abcdefghij', value])
        expect(everything.includes(secret), secret).toBe(false)
      for (const column of ['password_hash', 'key_hash', 'token'])
        expect(everything).not.toContain(`"${column}"`)
      expect(lines('provider_keys')[0]).toMatchObject({ provider: 'openai', mask: 'sk-012****ghij' })
      expect(lines('variables')[0]).toMatchObject({ value: null, mask: 'creden****6789' })
    })

    test('secrets without any encryption key are there without what they are', async () => {
      const scope = newUser()
      await tb.credentials.apiKeys.put(scope, ROOT, 'openai', { apiKey: 'sk-0123456789abcdefghij' })
      await tb.variables.create(scope, ROOT, { name: 'n', value: 'x', type: 'generic' })
      const none = new ThreadbaseError('unavailable', 'there is no key')
      const keys = { get: () => Promise.reject(none), find: () => Promise.reject(none) }
      const keyless = await openServices(opened.database, { keys, ports: { blobs: tb.blobs } })
      const { lines } = await exportOf(keyless, scope)
      expect(lines('provider_keys')).toMatchObject([{ provider: 'openai', mask: null, is_readable: false }])
      expect(lines('variables')).toMatchObject([{ name: 'n', mask: null, is_readable: false }])
    })

    test.each([
      ['plain', undefined],
      ['encrypted', { keys: [TEST_KEY] }],
    ])('checkpoints are read as JSON, %s', async (_, encryption) => {
      const scope = newUser()
      const services = await openServices(opened.database, {
        checkpoints: encryption === undefined ? {} : { encryption },
        ports: { blobs: tb.blobs },
      })
      const { checkpointer } = services.forUser(scope.userId)
      const list = Array.from({ length: 40 }, (_, n) => ({ text: `${n} ${'x'.repeat(300)}` }))
      const checkpoint = {
        ...emptyCheckpoint(),
        id: uuid6(0),
        channel_values: {
          small: 'yes',
          list,
          raw: new Uint8Array([1, 2, 3]),
          big: { text: 'y'.repeat(9_000) },
        },
        channel_versions: { small: 1, list: 1, raw: 1, big: 1 },
      }
      const config = { configurable: { thread_id: 'graph', checkpoint_ns: '' } }
      const put = await checkpointer.put(
        config,
        checkpoint,
        { source: 'input', step: -1, parents: {} },
        { small: 1, list: 1, raw: 1, big: 1 },
      )
      await checkpointer.putWrites(put, [['list', { late: true }]], 'task')
      const { lines } = await exportOf(services, scope)
      const [line] = lines('checkpoints')
      expect(line).toMatchObject({
        thread_id: 'graph',
        checkpoint_id: checkpoint.id,
        metadata: { source: 'input' },
        checkpoint: { id: checkpoint.id, channel_versions: checkpoint.channel_versions },
      })
      const values = new Map<string, Any>(lines('checkpoint_values').map((one: Any) => [one.hash, one]))
      // as README.txt says how
      const readValue = (hash: string): Any[] => {
        const { parts, value, is_several, base64 } = values.get(hash)
        if (parts !== undefined) return parts.flatMap(readValue)
        if (base64 !== undefined) return [Buffer.from(base64, 'base64')]
        return is_several === true ? value : [value]
      }
      const channel = (name: string): Any => {
        const found = line.channels[name]
        if ('value' in found) return found.value
        return found.is === 'list' ? readValue(found.hash) : readValue(found.hash)[0]
      }
      expect(channel('small')).toBe('yes')
      expect(channel('list')).toEqual(list)
      expect(channel('big')).toEqual({ text: 'y'.repeat(9_000) })
      expect(lines('checkpoint_writes')[0]).toMatchObject({ channel: 'list', value: { late: true } })
      if (encryption === undefined) return
      // without the key it is there as it is stored
      const { lines: sealed } = await exportOf(tb, scope)
      expect(sealed('checkpoints')[0]).toMatchObject({
        base64: expect.any(String),
        problem: expect.stringContaining('ENCRYPTION_KEY'),
      })
    })

    test('bytes are under safe names, equal ones once', async () => {
      const scope = newUser()
      const { id } = await tb.threads.create(scope)
      for (const [n, filename] of ODD_NAMES.entries())
        await tb.artifacts.create(scope, id, `${n} ${scope.userId}`, { filename })
      await tb.files.create(scope, `0 ${scope.userId}`, { filename: 'again' })
      const large = randomBytes(3_000_000)
      await tb.files.create(scope, large, { filename: 'large.bin' })
      const { files, lines } = await exportOf(tb, scope)
      for (const { path, sha256, filename } of lines('artifacts')) {
        expect(sha256Of(files.get(path) as Buffer)).toBe(sha256)
        expect(path, JSON.stringify(filename)).toMatch(/^artifacts\/[0-9a-f-]{36}\/[^/\\\p{Cc}<>:"|?*]+$/u)
        expect(ODD_NAMES).toContain(filename)
      }
      const paths = lines('files').map(({ path }: Any) => path)
      expect(paths[0]).toBe(lines('artifacts')[0].path)
      expect(files.get(paths[1])).toEqual(large)
      expect([...files.keys()].filter((path) => path.includes('/'))).toHaveLength(ODD_NAMES.length + 1)
    })

    test('what is missing or damaged in the storage is told, and the rest is there', async () => {
      const scope = newUser()
      const make = (filename: string) => tb.files.create(scope, `${filename} ${scope.userId}`, { filename })
      const [gone, damaged, whole] = [await make('gone'), await make('damaged'), await make('whole')]
      await tb.blobs.remove(gone.sha256)
      const { key } = tb.blobs.locate(damaged.sha256)
      await writeFile(join(dir, key), 'other')
      const { files, manifest, lines } = await exportOf(tb, scope)
      expect(manifest.missing).toMatchObject([
        { table: 'files', id: gone.id, reason: 'not in the storage', sha256: gone.sha256 },
        { table: 'files', id: damaged.id, reason: expect.stringMatching(/^damaged/) },
      ])
      const pathOf = (id: unknown) => lines('files').find((line: Any) => line.id === id).path
      expect(files.has(pathOf(gone.id))).toBe(false)
      expect(String(files.get(pathOf(whole.id)))).toBe(`whole ${scope.userId}`)
    })

    test('while others write it is whole; on PostgreSQL as of one moment', { timeout: 60_000 }, async () => {
      const scope = newUser()
      const { id } = await tb.threads.create(scope)
      const append = (n: number) =>
        tb.messages.append(
          scope,
          id,
          Array.from({ length: n }, () => ({ role: 'user' as const, content: 'x'.repeat(100) })),
        )
      for (let i = 0; i < 5; i++) await append(1_000)
      let running = true
      let appended = 5_000
      const writer = (async () => {
        while (running) {
          await append(10)
          appended += 10
          await delay(2)
        }
      })()
      await delay(20)
      const { lines } = await exportOf(tb, scope)
      running = false
      await writer
      const messages = lines('messages')
      expect(messages.length).toBeGreaterThanOrEqual(5_000)
      expect(messages.length).toBeLessThanOrEqual(appended)
      expect(messages.map(({ seq }: Any) => seq)).toEqual(messages.map((_: Any, i: number) => i + 1))
      if (engine.name === 'postgres') expect(lines('threads')[0].last_seq).toBe(messages.length)
    })

    test('who leaves in the middle ends it, and another one can begin', async () => {
      const scope = newUser()
      await tb.files.create(scope, randomBytes(5_000_000))
      const { stream, report } = await tb.gdpr.export(scope, ROOT)
      await expect(tb.gdpr.export(scope, ROOT)).rejects.toMatchObject({ code: 'rate_limited' })
      const reader = stream[Symbol.asyncIterator]()
      await reader.next()
      await reader.return?.()
      await expect(report).rejects.toMatchObject({ code: 'unavailable' })
      const { manifest } = await exportOf(tb, scope)
      expect(manifest.missing).toEqual([])
    })

    test('a reader that is slow holds little in memory', async () => {
      const scope = newUser()
      for (let i = 0; i < 5; i++) await tb.files.create(scope, randomBytes(8_000_000))
      let written = 0
      const { stream, report } = await tb.gdpr.export(scope, ROOT, {
        onProgress: ({ bytes }) => {
          written = bytes
        },
      })
      let read = 0
      for await (const chunk of stream) {
        read += (chunk as Buffer).length
        // a file counts when it is written whole
        expect(written - read).toBeLessThan(3_000_000)
        if (read < 2_000_000) await delay(5)
      }
      await report
      expect(read).toBeGreaterThan(40_000_000)
    })

    test('large rows come a few at a time, wherever they are large, and where all of it is the same', {
      timeout: 60_000,
    }, async () => {
      const scope = newUser()
      const meta = { x: randomBytes(1_000_000).toString('base64') }
      for (let i = 0; i < 12; i++) await tb.threads.create(scope, { meta })
      const { id } = await tb.threads.create(scope)
      for (let i = 0; i < 30; i++)
        await tb.messages.append(scope, id, [{ role: 'user', content: 'a'.repeat(1_000_000) }])
      const most: Record<string, number> = {}
      let before = 0
      const onProgress = ({ file, records }: { file: string; records: number }) => {
        most[file] = Math.max(most[file] ?? 0, records - before)
        before = records
      }
      const { stream, report } = await tb.gdpr.export(scope, ROOT, { onProgress })
      stream.resume()
      await report
      expect(before).toBeGreaterThanOrEqual(43)
      expect(most['threads.jsonl']).toBeLessThan(8)
      expect(most['messages.jsonl']).toBeLessThan(25)
    })

    test('a storage that breaks off breaks the archive off', async () => {
      const scope = newUser()
      await tb.files.create(scope, `some ${scope.userId}`)
      const blobs = {
        ...tb.blobs,
        read: async () =>
          (await import('node:stream')).Readable.from(
            (async function* () {
              yield Buffer.from('so')
              throw new Error('broken off')
            })(),
          ),
      }
      const failing = await openServices(opened.database, { ports: { blobs } })
      const { stream, report } = await failing.gdpr.export(scope, ROOT)
      await expect(buffer(stream)).rejects.toThrow('broken off')
      await expect(report).rejects.toThrow('broken off')
    })

    test('of a user of whom there is nothing there is none; each is written down', async () => {
      const scope = newUser()
      await expect(tb.gdpr.export(scope, ROOT)).rejects.toMatchObject({ code: 'not_found' })
      await expect(tb.gdpr.export({ userId: '' }, ROOT)).rejects.toMatchObject({ code: 'invalid_input' })
      await tb.threads.create(scope)
      const { lines } = await exportOf(tb, scope)
      expect(lines('audit_log')).toMatchObject([{ action: 'data_exported', actor_id: 'root', target: null }])
      const { items } = await tb.audit.list({ userId: scope.userId })
      expect(items.map(({ action }) => action)).toEqual(['data_exported'])
    })
  })
}

describe('names in an archive', () => {
  test.each([
    ['plot.png', 'plot.png'],
    ['../../etc/passwd', 'passwd'],
    ['C:\\x\\con.txt', '_con.txt'],
    ['a:b*c?.txt', 'a_b_c_.txt'],
    ['  .hidden. ', 'hidden'],
    ['\u202egnp.exe', '_gnp.exe'],
    ['', 'file'],
    ['///', 'file'],
    ['…', '…'],
  ])('%j is %j', (name, expected) => {
    expect(safeName(name)).toBe(expected)
  })

  test('are short, and keep their extension', () => {
    for (const name of [`${'é'.repeat(300)}.csv`, `${'😀'.repeat(300)}.csv`]) {
      expect(Buffer.byteLength(safeName(name))).toBeLessThanOrEqual(120)
      expect(safeName(name).endsWith('.csv')).toBe(true)
      expect(safeName(name).isWellFormed()).toBe(true)
    }
  })

  test.each([
    ['local', 'local'],
    ['auth0|abc/../x', 'auth0_abc_.._x'],
    ['../../x', 'x'],
    ['…', 'user'],
  ])('the id %j is %j', (id, expected) => {
    expect(idInName(id)).toBe(expected)
  })
})
