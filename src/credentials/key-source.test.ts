import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { makeTempDir } from '../../test/harness.ts'
import { readKey } from '../core/key-ring.ts'
import { createKeySource, fixedKeys, newEncryptionKey } from './service.ts'

const idOf = (text: string) => readKey(text)?.id
const ids = (keys: readonly { id: string }[]) => keys.map(({ id }) => id)

describe('where keys come from', () => {
  let root: string
  let dataDir: string
  let count = 0
  beforeAll(async () => {
    root = await makeTempDir()
  })
  afterAll(() => rm(root, { recursive: true, force: true }))
  beforeEach(() => {
    dataDir = join(root, String(++count))
  })
  const embedded = () => createKeySource({ dataDir, databaseUrl: undefined, encryptionKeys: undefined })
  const file = () => join(dataDir, 'encryption.key')

  test('of the configuration, in their order, wherever the records are', async () => {
    const texts = [newEncryptionKey(), newEncryptionKey()]
    for (const databaseUrl of [undefined, 'postgres://x']) {
      const source = createKeySource({ dataDir, databaseUrl, encryptionKeys: texts })
      expect(ids(await source.find())).toEqual(texts.map(idOf))
      expect(await source.get()).toEqual(await source.find())
    }
    await expect(stat(dataDir)).rejects.toMatchObject({ code: 'ENOENT' })
  })

  test('with a database and no key there is none, and none is made', async () => {
    const source = createKeySource({ dataDir, databaseUrl: 'postgres://x', encryptionKeys: undefined })
    for (const ask of [source.find, source.get])
      await expect(ask()).rejects.toMatchObject({
        code: 'unavailable',
        message: expect.stringContaining('ENCRYPTION_KEY'),
      })
    await expect(stat(dataDir)).rejects.toMatchObject({ code: 'ENOENT' })
  })

  test('on the embedded store one is made by the first who encrypts, not by who reads', async () => {
    const source = embedded()
    expect(await source.find()).toEqual([])
    await expect(stat(dataDir)).rejects.toMatchObject({ code: 'ENOENT' })
    const rings = await Promise.all([source.get(), source.get(), embedded().get()])
    expect(new Set(rings.map(([{ id }]) => id)).size).toBe(1)
    expect((await stat(file())).mode & 0o777).toBe(0o600)
    expect(idOf((await readFile(file(), 'utf8')).trim())).toBe(rings[0][0].id)
    expect(await source.find()).toEqual(rings[0])
    expect(await embedded().find()).toEqual(rings[0])
    expect(await readdir(dataDir)).toEqual(['encryption.key'])
  })

  test('the file may hold several, on lines or with commas', async () => {
    await embedded().get()
    const texts = [newEncryptionKey(), newEncryptionKey(), newEncryptionKey()]
    for (const separator of ['\n', ',', ', ', '\r\n\n']) {
      await writeFile(file(), `${texts.join(separator)}\n`)
      expect(ids(await embedded().get())).toEqual(texts.map(idOf))
    }
  })

  test.each(['', '\n', 'hunter2hunter2', `${newEncryptionKey()}\nhunter2hunter2`])(
    'a file that does not hold keys stays as it is, %#',
    async (text) => {
      await embedded().get()
      await writeFile(file(), text)
      for (const ask of [embedded().find, embedded().get]) {
        const failing = ask()
        await expect(failing).rejects.toMatchObject({
          code: 'invalid_input',
          message: expect.stringContaining(file()),
        })
        await expect(failing).rejects.not.toThrow(/hunter2/)
      }
      expect(await readFile(file(), 'utf8')).toBe(text)
    },
  )

  test('what is no key is refused and not repeated', () => {
    for (const texts of [[], ['hunter2'], [newEncryptionKey(), 'hunter2']]) {
      expect(() => fixedKeys(texts)).toThrow(expect.objectContaining({ code: 'invalid_input' }))
      expect(() => fixedKeys(texts)).not.toThrow(/hunter2/)
    }
  })
})
