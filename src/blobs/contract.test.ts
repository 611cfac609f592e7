import { execFileSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdir, readdir, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { makeTempDir, s3Endpoint } from '../../test/harness.ts'
import { makeBucket } from '../../test/s3.ts'
import { type Blobs, keyOf, type PresignedPut } from './blobs.ts'
import { openFiles } from './files.ts'
import { openS3, type S3Options } from './s3.ts'
import { createUrlSigner } from './signed-urls.ts'

const shaOf = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')

type Opened = {
  blobs: Blobs
  /** Puts bytes as somebody does who got a URL. */
  upload(to: PresignedPut, bytes: Uint8Array<ArrayBuffer>): Promise<void>
  close(): Promise<void>
}

async function openOnFiles(): Promise<Opened & { dir: string }> {
  const dir = await makeTempDir()
  const signer = createUrlSigner(randomBytes(32))
  const blobs = openFiles({ dir, signer: async () => signer })
  // the server, which answers these URLs, writes it there
  const upload = async ({ key }: PresignedPut, bytes: Uint8Array) => {
    await mkdir(dirname(join(dir, key)), { recursive: true })
    await writeFile(join(dir, key), bytes)
  }
  return { blobs, dir, upload, close: () => rm(dir, { recursive: true, force: true }) }
}

async function openOnS3(options: Partial<S3Options> = {}): Promise<Opened> {
  const bucket = await makeBucket(options)
  const blobs = openS3(bucket.options)
  const close = async () => {
    await blobs.close()
    await bucket.remove()
  }
  const upload = async ({ url, method, headers }: PresignedPut, body: Uint8Array<ArrayBuffer>) => {
    const { status } = await fetch(url, { method, headers, body })
    expect(status).toBe(200)
  }
  return { blobs, upload, close }
}

const MiB = 1 << 20
const STORAGES = [
  { name: 'files', available: true, open: openOnFiles },
  { name: 'S3', available: s3Endpoint !== null, open: () => openOnS3() },
  {
    name: 'S3, in parts',
    available: s3Endpoint !== null,
    // nothing here is large: so the smallest parts that S3 takes
    open: () => openOnS3({ partBytes: 5 * MiB, copyBytes: 6 * MiB, copyPartBytes: 5 * MiB }),
  },
]

for (const { name, available, open } of STORAGES)
  describe.skipIf(!available)(`bytes in ${name}`, () => {
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

    test.each([5 * MiB, 5 * MiB + 1, 8 * MiB, 8 * MiB + 1, 10 * MiB, 16 * MiB, 21 * MiB + 7])(
      '%i bytes come back, and nothing else of them stays',
      async (length) => {
        const bytes = randomBytes(length)
        const { sha256, existed } = await store(bytes)
        expect([sha256, existed]).toEqual([shaOf(bytes), false])
        expect(await blobs.find(sha256)).toMatchObject({ size: length })
        expect((await buffer(await blobs.read(sha256, { verify: true }))).equals(bytes)).toBe(true)
        expect(await store(bytes)).toMatchObject({ existed: true })
        expect(await blobs.sweepStaged(-1_000)).toBe(0)
      },
    )

    test('what is announced and there already is read all the same', async () => {
      const bytes = randomBytes(9 * MiB)
      const facts = { sha256: shaOf(bytes), size: bytes.length }
      await store(bytes)
      await using staged = await blobs.stage(inParts(bytes, MiB), facts)
      expect(await staged.commit()).toEqual({ existed: true })
      // to know a hash is no proof of having the bytes
      const others = randomBytes(9 * MiB)
      await expect(blobs.stage(inParts(others, MiB), facts)).rejects.toMatchObject({ code: 'invalid_input' })
      await blobs.remove(facts.sha256)
      await using again = await blobs.stage(inParts(bytes, MiB), facts)
      expect(await again.commit()).toEqual({ existed: false })
      expect(await blobs.find(facts.sha256)).toMatchObject({ size: bytes.length })
    })

    test('a commit finds out for itself whether the bytes are there', async () => {
      for (const length of [10, 9 * MiB]) {
        const bytes = randomBytes(length)
        const staged = await blobs.stage(inParts(bytes, MiB))
        await store(bytes)
        await blobs.remove(staged.sha256)
        expect(await staged.commit()).toEqual({ existed: false })
        expect(shaOf(await buffer(await blobs.read(staged.sha256)))).toBe(staged.sha256)
        await staged.discard()
        expect(await blobs.find(staged.sha256)).toMatchObject({ size: length })
      }
    })

    test('there are none beyond the end; a range that is none is refused', async () => {
      const { sha256 } = await store(Buffer.from('0123456789'))
      const read = async (start?: number, end?: number) =>
        (await buffer(await blobs.read(sha256, { start, end }))).toString()
      expect(await read(8, 20)).toBe('89')
      expect(await read(undefined, 1)).toBe('01')
      expect(await read(9)).toBe('9')
      expect([await read(10), await read(10, 20)]).toEqual(['', ''])
      for (const [start, end] of [[5, 4], [-1], [0.5], [0, Number.NaN], [Number.POSITIVE_INFINITY]])
        await expect(read(start, end)).rejects.toMatchObject({ code: 'invalid_input' })
      const empty = await store(Buffer.alloc(0))
      expect(await buffer(await blobs.read(empty.sha256, { start: 0 }))).toHaveLength(0)
      expect(await buffer(await blobs.read(empty.sha256, { verify: true }))).toHaveLength(0)
    })

    test('a reader that goes away in the middle harms nobody', async () => {
      const { sha256 } = await store(randomBytes(3_000_000))
      for (let i = 0; i < 5; i++) {
        const stream = await blobs.read(sha256, { verify: i % 2 === 0 })
        await new Promise((resolve) => stream.once('data', resolve))
        stream.destroy()
      }
      expect(await buffer(await blobs.read(sha256))).toHaveLength(3_000_000)
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

    test.each([10, 3 * MiB, 12 * MiB])(
      'a source that fails after %i bytes leaves nothing',
      async (length) => {
        // as one of the system: the fault is the source's all the same
        const failure = Object.assign(new Error('gone away'), { code: 'ECONNRESET', errno: -104 })
        const source = async function* () {
          yield* inParts(randomBytes(length), MiB)
          throw failure
        }
        await expect(blobs.stage(source())).rejects.toBe(failure)
        expect(await blobs.sweepStaged(-1_000)).toBe(0)
      },
    )

    test('what was staged and left is swept when it is old enough', async () => {
      // more than S3 keeps in memory
      await blobs.stage(inParts(randomBytes(9 * MiB), MiB))
      expect(await blobs.sweepStaged(60_000)).toBe(0)
      expect(await blobs.sweepStaged(-1_000)).toBe(1)
    })

    test('what was put to a URL is removed by its key, and nothing else is', async () => {
      const bytes = randomBytes(100)
      const { sha256 } = await store(bytes)
      const to = await blobs.presignPut({ sha256, size: 100 }, { expiresInS: 60 })
      await blobs.removeUpload(to.key)
      await opened.upload(to, bytes)
      await blobs.removeUpload(to.key)
      await expect(blobs.stageObject(to.key)).rejects.toMatchObject({ code: 'not_found' })
      for (const key of [blobs.locate(sha256).key, 'uploads/../output/x', '/etc/passwd', '', to.key.slice(1)])
        await expect(async () => blobs.removeUpload(key)).rejects.toMatchObject({ code: 'invalid_input' })
      expect(await blobs.find(sha256)).toBeDefined()
      expect(await blobs.sweepStaged(-1_000)).toBe(0)
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
      const to = await blobs.presignPut({ sha256: shaOf(bytes), size: 1_000 }, { expiresInS: 60 })
      const { key } = to
      await expect(blobs.stageObject(key)).rejects.toMatchObject({ code: 'not_found' })
      await opened.upload(to, bytes)
      await expect(blobs.stageObject(key, { size: 5 })).rejects.toMatchObject({ code: 'invalid_input' })
      const staged = await blobs.stageObject(key, { size: 1_000, sha256: shaOf(bytes) })
      await staged.commit()
      expect(await blobs.find(shaOf(bytes))).toMatchObject({ size: 1_000 })
      await expect(blobs.stageObject(key)).rejects.toMatchObject({ code: 'not_found' })
    })

    test('an object at the place of its hash stays there', async () => {
      const { sha256, size } = await store(randomBytes(1_000))
      const { key } = blobs.locate(sha256)
      expect(key).toMatch(
        new RegExp(`output/artifacts/${sha256.slice(0, 2)}/${sha256.slice(2, 4)}/${sha256}$`),
      )
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

  test('bytes that were changed on the disk are made right by who stores them again', async () => {
    const { blobs, dir, close } = await openOnFiles()
    const bytes = randomBytes(100)
    for (let i = 0; i < 2; i++) {
      await (await blobs.stage(Readable.from([bytes]))).commit()
      if (i === 0) await writeFile(join(dir, keyOf(shaOf(bytes))), randomBytes(100))
    }
    expect((await buffer(await blobs.read(shaOf(bytes)))).equals(bytes)).toBe(true)
    await close()
  })

  test('an object that is a link, a directory or a pipe is none', async () => {
    const { blobs, dir, close } = await openOnFiles()
    await mkdir(join(dir, 'output/sandbox'), { recursive: true })
    await writeFile(join(dir, 'secret'), 'secret')
    await symlink('../../secret', join(dir, 'output/sandbox/link'))
    await symlink('..', join(dir, 'output/sandbox/up'))
    await writeFile(join(dir, 'output/plain'), 'plain')
    execFileSync('mkfifo', [join(dir, 'output/sandbox/pipe')])
    for (const name of ['link', 'up/plain', 'pipe', 'up', 'plain/x'])
      await expect(blobs.stageObject(`output/sandbox/${name}`), name).rejects.toMatchObject({
        code: 'not_found',
      })
    const staged = await blobs.stageObject('output/plain')
    expect(staged.size).toBe(5)
    await staged.discard()
    await close()
  })

  test('what was left in directories is swept with them', async () => {
    const { blobs, dir, close } = await openOnFiles()
    await mkdir(join(dir, 'uploads/run/deep'), { recursive: true })
    await writeFile(join(dir, 'uploads/run/deep/plot.png'), 'x')
    expect(await blobs.sweepStaged(60_000)).toBe(0)
    await delay(20)
    expect(await blobs.sweepStaged(0)).toBe(1)
    await delay(20)
    expect(await blobs.sweepStaged(0)).toBe(0)
    await blobs.sweepStaged(-1_000)
    expect(await readdir(join(dir, 'uploads'))).toEqual([])
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
