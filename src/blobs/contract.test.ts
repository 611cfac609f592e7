import { createHash, randomBytes } from 'node:crypto'
import { readdir, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { makeTempDir } from '../../test/harness.ts'
import { type Blobs, keyOf } from './blobs.ts'
import { openFiles } from './files.ts'
import { createUrlSigner } from './signed-urls.ts'

const shaOf = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

type Opened = { blobs: Blobs; dir: string; close(): Promise<void> }

async function openOnFiles(): Promise<Opened> {
  const dir = await makeTempDir()
  const signer = createUrlSigner(randomBytes(32))
  const blobs = openFiles({ dir, signer: async () => signer })
  return { blobs, dir, close: () => rm(dir, { recursive: true, force: true }) }
}

describe.each([{ name: 'files', open: openOnFiles }])('bytes in $name', ({ open }) => {
  let blobs: Blobs
  let opened: Opened
  beforeAll(async () => {
    opened = await open()
    blobs = opened.blobs
  })
  afterAll(() => opened?.close())

  const inParts = (bytes: Uint8Array, size: number): Readable =>
    Readable.from(
      Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) =>
        bytes.subarray(i * size, (i + 1) * size),
      ),
    )
  const store = async (bytes: Uint8Array) => {
    await using staged = await blobs.stage(Readable.from([bytes]))
    return { ...staged, ...(await staged.commit()) }
  }
  const all = async (after?: string) => {
    const found: string[] = []
    for await (const { sha256 } of blobs.list(after)) found.push(sha256)
    return found
  }

  test('bytes come back, whole and in part, whatever the sizes of their chunks', async () => {
    const sizes = fc.integer({ min: 1, max: 3_000_000 })
    await fc.assert(
      fc.asyncProperty(fc.nat(5_000_000), sizes, fc.nat(), fc.nat(), async (length, size, a, b) => {
        const bytes = randomBytes(length)
        const staged = await blobs.stage(inParts(bytes, size))
        expect(staged).toMatchObject({ sha256: shaOf(bytes), size: length })
        expect(Buffer.from(staged.beginning).equals(bytes.subarray(0, 4_100))).toBe(true)
        await staged.commit()
        const whole = await buffer(await blobs.read(staged.sha256, { verify: true }))
        expect(whole.equals(bytes)).toBe(true)
        if (length === 0) return
        const [start, end] = [a % length, b % length].sort((x, y) => x - y) as [number, number]
        const part = await buffer(await blobs.read(staged.sha256, { start, end }))
        expect(part.equals(bytes.subarray(start, end + 1))).toBe(true)
      }),
      { numRuns: 12 },
    )
  })

  test('the same bytes are stored once', async () => {
    const bytes = randomBytes(1_000)
    const first = await store(bytes)
    const second = await store(bytes)
    expect([first.existed, second.existed]).toEqual([false, true])
    expect((await all()).filter((sha256) => sha256 === first.sha256)).toHaveLength(1)
  })

  test('sixteen who store the same bytes at the same time all have them', async () => {
    const bytes = randomBytes(100_000)
    const stored = await Promise.all(Array.from({ length: 16 }, () => store(bytes)))
    expect(new Set(stored.map(({ sha256 }) => sha256))).toEqual(new Set([shaOf(bytes)]))
    expect((await buffer(await blobs.read(shaOf(bytes)))).equals(bytes)).toBe(true)
  })

  test('what is staged is not found before it is committed, and not at all when it is discarded', async () => {
    const bytes = randomBytes(10)
    const staged = await blobs.stage(Readable.from([bytes]))
    expect(await blobs.find(staged.sha256)).toBeUndefined()
    await staged.discard()
    await staged.discard()
    expect(await blobs.find(staged.sha256)).toBeUndefined()
    await expect(blobs.read(staged.sha256)).rejects.toMatchObject({ code: 'not_found' })
    expect(await blobs.sweepStaged(-1_000)).toBe(0)
  })

  test.each([
    ['too many bytes', { maxBytes: 99 }, 'too_large'],
    ['more bytes than announced', { size: 99 }, 'invalid_input'],
    ['fewer bytes than announced', { size: 101 }, 'invalid_input'],
    ['another hash', { sha256: shaOf(Buffer.from('x')) }, 'invalid_input'],
  ])('%s are refused, and nothing of them stays', async (_, options, code) => {
    const bytes = randomBytes(100)
    await expect(blobs.stage(inParts(bytes, 30), options)).rejects.toMatchObject({ code })
    expect(await blobs.find(shaOf(bytes))).toBeUndefined()
    expect(await blobs.sweepStaged(-1_000)).toBe(0)
  })

  test('a source that fails in the middle leaves nothing', async () => {
    const source = async function* () {
      yield randomBytes(3_000_000)
      throw new Error('gone away')
    }
    await expect(blobs.stage(source())).rejects.toThrow('gone away')
    expect(await blobs.sweepStaged(-1_000)).toBe(0)
  })

  test('what was staged and left is swept when it is old enough', async () => {
    await blobs.stage(Readable.from([randomBytes(10)]))
    expect(await blobs.sweepStaged(60_000)).toBe(0)
    expect(await blobs.sweepStaged(-1_000)).toBe(1)
  })

  test('removed bytes are gone; removing again is no failure', async () => {
    const { sha256 } = await store(randomBytes(10))
    await blobs.remove(sha256)
    await blobs.remove(sha256)
    expect(await blobs.find(sha256)).toBeUndefined()
  })

  test('they are listed by hash, after any hash', async () => {
    for (let i = 0; i < 30; i++) await store(randomBytes(5))
    const found = await all()
    expect(found).toEqual(found.toSorted())
    expect(found.length).toBeGreaterThan(30)
    for (const after of [found[0], found[10], found.at(-1)] as string[])
      expect(await all(after)).toEqual(found.filter((sha256) => sha256 > after))
  })

  test('what is no hash is refused', async () => {
    for (const bad of ['', '../../etc/passwd', 'A'.repeat(64), `${'a'.repeat(63)}\n`])
      await expect(async () => blobs.read(bad)).rejects.toMatchObject({ code: 'invalid_input' })
  })

  test('an object that somebody else put there is hashed, and moved to its place', async () => {
    const bytes = randomBytes(1_000)
    const { key } = await blobs.presignPut({ sha256: shaOf(bytes), size: 1_000 }, { expiresInS: 60 })
    await expect(blobs.stageObject(key)).rejects.toMatchObject({ code: 'not_found' })
    await writeFile(join(opened.dir, key), bytes)
    await expect(blobs.stageObject(key, { size: 5 })).rejects.toMatchObject({ code: 'invalid_input' })
    const staged = await blobs.stageObject(key, { size: 1_000, sha256: shaOf(bytes) })
    await staged.commit()
    expect(await blobs.find(shaOf(bytes))).toMatchObject({ size: 1_000 })
    await expect(blobs.stageObject(key)).rejects.toMatchObject({ code: 'not_found' })
  })

  test('an object at the place of its hash stays there', async () => {
    const { sha256, size } = await store(randomBytes(1_000))
    const { key } = blobs.locate(sha256)
    expect(key).toMatch(new RegExp(`output/artifacts/${sha256.slice(0, 2)}/${sha256.slice(2, 4)}/${sha256}$`))
    await using staged = await blobs.stageObject(key, { sha256, size })
    expect(await staged.commit()).toEqual({ existed: true })
    expect(shaOf(await buffer(await blobs.read(sha256)))).toBe(sha256)
  })

  test('a key that leads elsewhere is refused', async () => {
    const start = blobs.locate('ab'.repeat(32)).key.replace(/output.*/, '')
    const bad = ['', 'x', 'output', '../x', '/etc/passwd', 'uploads/../../x', 'uploads/./x', 'output//x']
    const odd = ['uploads/', 'uploads/x\0', 'uploads/x\n', 'uploads/\ud800', `uploads/${'x'.repeat(1_100)}`]
    for (const key of [...bad, ...odd].map((key) => start + key))
      await expect(async () => blobs.stageObject(key)).rejects.toMatchObject({ code: 'invalid_input' })
  })
})

describe('files', () => {
  test('the layout is that of the seed; stored bytes are for their owner only', async () => {
    const { blobs, dir, close } = await openOnFiles()
    const staged = await blobs.stage(Readable.from([Buffer.from('x')]))
    await staged.commit()
    const path = join(dir, keyOf(staged.sha256))
    expect(((await stat(path)).mode & 0o777).toString(8)).toBe('600')
    expect(await readdir(join(dir, 'uploads'))).toEqual([])
    await close()
  })

  test('bytes that were changed on the disk are found out by who asks', async () => {
    const { blobs, dir, close } = await openOnFiles()
    const staged = await blobs.stage(Readable.from([Buffer.from('right')]))
    await staged.commit()
    await writeFile(join(dir, keyOf(staged.sha256)), 'wrong')
    await expect(buffer(await blobs.read(staged.sha256, { verify: true }))).rejects.toMatchObject({
      code: 'unavailable',
    })
    await close()
  })

  test('a file that was cut short is made whole by who stores the bytes again', async () => {
    const { blobs, dir, close } = await openOnFiles()
    const bytes = randomBytes(100)
    for (let i = 0; i < 2; i++) {
      const staged = await blobs.stage(Readable.from([bytes]))
      await staged.commit()
      if (i === 0) await writeFile(join(dir, keyOf(staged.sha256)), bytes.subarray(0, 50))
    }
    expect((await buffer(await blobs.read(shaOf(bytes)))).equals(bytes)).toBe(true)
    await close()
  })

  test('storing again makes them young', async () => {
    const { blobs, dir, close } = await openOnFiles()
    const bytes = randomBytes(100)
    await (await blobs.stage(Readable.from([bytes]))).commit()
    const old = new Date('2020-01-01')
    await utimes(join(dir, keyOf(shaOf(bytes))), old, old)
    await (await blobs.stage(Readable.from([bytes]))).commit()
    expect((await blobs.find(shaOf(bytes)))?.modifiedAt.getTime()).toBeGreaterThan(Date.now() - 60_000)
    await close()
  })
})
