import { createHash, randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { CreateMultipartUploadCommand, DeleteObjectCommand } from '@aws-sdk/client-s3'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { s3Endpoint } from '../../test/harness.ts'
import { makeBucket, type TestBucket } from '../../test/s3.ts'
import type { Blobs, PresignedPut } from './blobs.ts'
import { openS3 } from './s3.ts'

const shaOf = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
const MiB = 1 << 20
const PREFIX = 'team/threadbase/'

describe.skipIf(s3Endpoint === null)('bytes in a bucket', () => {
  let bucket: TestBucket
  let blobs: Blobs
  beforeAll(async () => {
    bucket = await makeBucket({ partBytes: 5 * MiB })
    blobs = openS3(bucket.options)
  })
  afterAll(async () => {
    await blobs?.close()
    await bucket?.remove()
  })

  const store = async (bytes: Uint8Array) => {
    await using staged = await blobs.stage(Readable.from([bytes]))
    return { ...staged, ...(await staged.commit()) }
  }
  const all = async (from: Blobs, after?: string) => {
    const found: string[] = []
    for await (const { sha256 } of from.list(after)) found.push(sha256)
    return found
  }

  test('the key is that of the seed, below the prefix; the address has no credential', async () => {
    const { sha256 } = await store(Buffer.from('x'))
    const key = `${PREFIX}output/artifacts/${sha256.slice(0, 2)}/${sha256.slice(2, 4)}/${sha256}`
    expect(await bucket.keys()).toContain(key)
    expect(blobs.locate(sha256)).toEqual({ key, url: `s3://${bucket.name}/${key}` })
    expect(blobs.description).toBe(`S3 bucket ${bucket.name} at ${new URL(s3Endpoint ?? '').host}`)
  })

  test('an object that is shorter than its bytes is replaced', async () => {
    for (const bytes of [randomBytes(1_000), randomBytes(6 * MiB)]) {
      await bucket.put(blobs.locate(shaOf(bytes)).key, bytes.subarray(0, 500))
      expect(await store(bytes)).toMatchObject({ existed: false })
      expect((await buffer(await blobs.read(shaOf(bytes), { verify: true }))).equals(bytes)).toBe(true)
    }
  })

  test('bytes that were changed are found out by who asks', async () => {
    const { sha256 } = await store(Buffer.from('right'))
    await bucket.put(blobs.locate(sha256).key, Buffer.from('wrong'))
    await expect(buffer(await blobs.read(sha256, { verify: true }))).rejects.toMatchObject({
      code: 'unavailable',
    })
    await blobs.remove(sha256)
  })

  test('installations share a bucket, each below its prefix', async () => {
    const other = openS3({ ...bucket.options, prefix: '' })
    const bytes = randomBytes(100)
    const { sha256 } = await store(bytes)
    expect(await other.find(sha256)).toBeUndefined()
    expect(await all(other)).toEqual([])
    const { key } = await other.presignPut({ sha256, size: 100 }, { expiresInS: 60 })
    await expect(async () => blobs.stageObject(key)).rejects.toMatchObject({ code: 'invalid_input' })
    await bucket.put(key, bytes)
    expect(await blobs.sweepStaged(-1_000)).toBe(0)
    expect(await other.sweepStaged(-1_000)).toBe(1)
    await other.close()
  })

  test('more than a page of them are listed, and nothing else', async () => {
    const many = openS3({ ...bucket.options, prefix: 'many/' })
    const hashes = Array.from({ length: 1_010 }, (_, i) => shaOf(Buffer.from(String(i)))).sort()
    const others = ['many/output/artifacts/x', 'many/output/artifacts/00/00/+ü?', 'many/output/plot.png']
    const keys = [...hashes.map((sha256) => many.locate(sha256).key), ...others]
    const lane = async () => {
      for (let key = keys.pop(); key !== undefined; key = keys.pop()) await bucket.put(key, Buffer.from('x'))
    }
    await Promise.all(Array.from({ length: 16 }, lane))
    expect(await all(many)).toEqual(hashes)
    expect(await all(many, hashes[999])).toEqual(hashes.slice(1_000))
    await many.close()
  })

  test('what was left is swept: objects of any name, and uploads in parts', async () => {
    const names = ['a b', 'ü+%', '😀&<>"', 'x/y//z', 'a\u0001b']
    for (const name of names) await bucket.put(`${PREFIX}uploads/${name}`, Buffer.from('x'))
    const begun = ['uploads/a b', 'output/artifacts/00/00/x'].map((name) => PREFIX + name)
    for (const Key of [...begun, 'elsewhere'])
      await bucket.client.send(new CreateMultipartUploadCommand({ Bucket: bucket.name, Key }))
    expect(await blobs.sweepStaged(60_000)).toBe(0)
    expect(await blobs.sweepStaged(-1_000)).toBe(names.length + begun.length)
    expect(await blobs.sweepStaged(-1_000)).toBe(0)
    expect(await bucket.uploads()).toEqual(['elsewhere'])
  })

  test('an object of an agent stays, its bytes are taken', async () => {
    const [bytes, key] = [randomBytes(1_000), `${PREFIX}output/run 7/plöt+1.png`]
    await bucket.put(key, bytes)
    await using staged = await blobs.stageObject(key)
    expect(await staged.commit()).toEqual({ existed: false })
    expect((await buffer(await blobs.read(shaOf(bytes)))).equals(bytes)).toBe(true)
    expect(await bucket.keys()).toContain(key)
  })

  test('an object is taken as it was read, whatever becomes of it', async () => {
    const inParts = openS3({ ...bucket.options, copyBytes: 1, copyPartBytes: 5 * MiB })
    for (const storage of [blobs, inParts]) {
      for (const becomes of ['another', 'nothing']) {
        const [bytes, key] = [randomBytes(6 * MiB), `${PREFIX}uploads/agent`]
        await bucket.put(key, bytes)
        const staged = await storage.stageObject(key)
        if (becomes === 'another') await bucket.put(key, randomBytes(6 * MiB))
        else await bucket.client.send(new DeleteObjectCommand({ Bucket: bucket.name, Key: key }))
        expect(await staged.commit()).toEqual({ existed: false })
        expect((await buffer(await blobs.read(shaOf(bytes), { verify: true }))).equals(bytes)).toBe(true)
        expect(await blobs.sweepStaged(-1_000)).toBe(0)
      }
    }
    await inParts.close()
  })

  test('an object that is refused leaves itself and nothing else', async () => {
    const key = `${PREFIX}uploads/agent`
    await bucket.put(key, randomBytes(100))
    await expect(blobs.stageObject(key, { maxBytes: 99 })).rejects.toMatchObject({ code: 'too_large' })
    await expect(blobs.stageObject(key, { size: 101 })).rejects.toMatchObject({ code: 'invalid_input' })
    const sha256 = 'ab'.repeat(32)
    await expect(blobs.stageObject(key, { sha256 })).rejects.toMatchObject({ code: 'invalid_input' })
    await (await blobs.stageObject(key)).discard()
    expect(await blobs.sweepStaged(-1_000)).toBe(1)
  })

  test('what is there already is not sent again', async () => {
    const bytes = randomBytes(6 * MiB)
    await store(bytes)
    const sent = () => blobs.sweepStaged(-1_000)
    await blobs.stage(Readable.from([bytes]), { sha256: shaOf(bytes), size: bytes.length })
    expect(await sent()).toBe(0)
    const staged = await blobs.stage(Readable.from([bytes]))
    expect(await sent()).toBe(1)
    expect(await staged.commit()).toEqual({ existed: true })
  })

  test('bytes that are removed while they come again are not taken for stored', async () => {
    const bytes = randomBytes(6 * MiB)
    const { sha256, size } = await store(bytes)
    const staged = await blobs.stage(Readable.from([bytes]), { sha256, size })
    await blobs.remove(sha256)
    await expect(staged.commit()).rejects.toMatchObject({ code: 'unavailable' })
  })

  describe('a presigned URL', () => {
    const body = randomBytes(1_000)
    const facts = { sha256: shaOf(body), size: 1_000 }
    const GET = {
      contentType: 'text/plain',
      contentDisposition: `attachment; filename="a.txt"`,
      expiresInS: 60,
    }
    const put = async ({ url, headers }: PresignedPut, given: Record<string, string> = {}, bytes = body) =>
      (await fetch(url, { method: 'PUT', headers: { ...headers, ...given }, body: bytes })).status

    test('gives the bytes with the name and type that were signed', async () => {
      const { sha256 } = await store(body)
      const answer = await fetch(await blobs.presignGet(sha256, GET))
      expect(Buffer.from(await answer.arrayBuffer()).equals(body)).toBe(true)
      expect(answer.headers.get('content-type')).toBe(GET.contentType)
      expect(answer.headers.get('content-disposition')).toBe(GET.contentDisposition)
    })

    test('gives nothing when it was altered, has expired, or is used for something else', async () => {
      const { sha256 } = await store(body)
      const url = new URL(await blobs.presignGet(sha256, GET))
      const other = (await store(randomBytes(10))).sha256
      const altered = [...url.searchParams.keys()].map((name) => {
        const changed = new URL(url)
        changed.searchParams.set(name, `${url.searchParams.get(name)}0`)
        return changed
      })
      const elsewhere = new URL(url)
      elsewhere.pathname = `/${bucket.name}/${blobs.locate(other).key}`
      for (const one of [...altered, elsewhere])
        expect((await fetch(one)).status, one.href).toBeGreaterThanOrEqual(400)
      for (const method of ['PUT', 'DELETE']) expect((await fetch(url, { method })).status).toBe(403)
      const short = await blobs.presignGet(sha256, { ...GET, expiresInS: 1 })
      expect((await fetch(short)).status).toBe(200)
      await delay(2_100)
      expect((await fetch(short)).status).toBe(403)
      expect((await fetch(url)).status).toBe(200)
    })

    test('takes just the bytes that were announced', async () => {
      const to = await blobs.presignPut(facts, { expiresInS: 60 })
      expect(to.headers).toMatchObject({
        'content-length': '1000',
        'content-type': 'application/octet-stream',
      })
      const signed = new URL(to.url).searchParams.get('X-Amz-SignedHeaders')
      expect(signed?.split(';')).toEqual(expect.arrayContaining(['content-length', 'x-amz-checksum-sha256']))
      const longer = Buffer.concat([body, body])
      expect(await put(to, { 'content-length': '2000' }, longer)).toBe(403)
      expect(await put(to, { 'content-length': '10' }, body.subarray(0, 10))).toBe(403)
      const otherSum = createHash('sha256').update('other').digest('base64')
      expect(await put(to, { 'x-amz-checksum-sha256': otherSum })).toBe(403)
      const { 'x-amz-checksum-sha256': _, ...without } = to.headers
      expect((await fetch(to.url, { method: 'PUT', headers: without, body })).status).toBe(403)
      expect((await fetch(to.url)).status).toBe(403)
      await expect(blobs.stageObject(to.key)).rejects.toMatchObject({ code: 'not_found' })
      expect(await put(to)).toBe(200)
      await using staged = await blobs.stageObject(to.key, facts)
      expect(staged).toMatchObject(facts)
    })

    test('takes nothing after its time', async () => {
      const to = await blobs.presignPut(facts, { expiresInS: 1 })
      await delay(2_100)
      expect(await put(to)).toBe(403)
    })

    test('is refused for what S3 does not take', async () => {
      for (const expiresInS of [0, -1, 1.5, 604_801, Number.NaN])
        await expect(blobs.presignGet(facts.sha256, { ...GET, expiresInS })).rejects.toMatchObject({
          code: 'invalid_input',
        })
      const huge = { ...facts, size: 6 * 2 ** 30 }
      await expect(blobs.presignPut(huge, { expiresInS: 60 })).rejects.toMatchObject({ code: 'too_large' })
    })
  })

  test('many bytes cost the memory of a few parts', async () => {
    setFlagsFromString('--expose-gc')
    const gc = runInNewContext('gc') as () => void
    const live = () => {
      gc()
      return process.memoryUsage().arrayBuffers
    }
    const chunk = randomBytes(MiB)
    const before = live()
    let most = 0
    const source = async function* () {
      for (let i = 0; i < 60; i++) {
        if (i % 10 === 0) most = Math.max(most, live())
        yield chunk
      }
    }
    await using staged = await blobs.stage(source())
    expect(most - before).toBeLessThan(8 * 5 * MiB)
    await staged.commit()
    most = 0
    let count = 0
    for await (const part of await blobs.read(staged.sha256, { verify: true })) {
      count += part.length
      if (count % (8 * MiB) === 0) most = Math.max(most, live())
    }
    expect(count).toBe(60 * MiB)
    expect(most - before).toBeLessThan(30 * MiB)
  })
})
