import { createHash, randomBytes } from 'node:crypto'
import { createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { recordingLog, s3Endpoint } from '../../test/harness.ts'
import { makeBucket, type TestBucket } from '../../test/s3.ts'
import { type S3Proxy, s3Error, startS3Proxy } from '../../test/s3-proxy.ts'
import { startTcpProxy, type TcpProxy } from '../../test/tcp-proxy.ts'
import type { Blobs } from './blobs.ts'
import { openS3, type S3Options } from './s3.ts'

const MiB = 1 << 20
const shaOf = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
const small = randomBytes(1_000)
const large = randomBytes(12 * MiB)
const LIMITS = { connectTimeoutMs: 1_000, idleTimeoutMs: 700, partBytes: 5 * MiB }

const inParts = (bytes: Uint8Array) =>
  Readable.from(Array.from({ length: bytes.length / MiB }, (_, i) => bytes.subarray(i * MiB, (i + 1) * MiB)))
const stage = (blobs: Blobs, bytes: Uint8Array) =>
  blobs.stage(bytes.length < MiB ? Readable.from([bytes]) : inParts(bytes))
const store = async (blobs: Blobs, bytes: Uint8Array) => {
  await using staged = await stage(blobs, bytes)
  return await staged.commit()
}
const failure = async (work: Promise<unknown>) => {
  const error: unknown = await work.then(
    () => expect.fail('it did not fail'),
    (reason) => reason,
  )
  expect(error).toMatchObject({ code: 'unavailable' })
  const all = JSON.stringify([String(error), error, String((error as Error).cause), (error as Error).stack])
  for (const secret of ['secretsecretsecret', 'AKTEST', 'Signature=', 'StringToSign'])
    expect(all).not.toContain(secret)
  return error as Error & { details: { code: string } }
}

/** Everything that asks the storage, on bytes that are there. */
function asking(blobs: Blobs, bucket: TestBucket): [name: string, ask: () => Promise<unknown>][] {
  const sha256 = shaOf(small)
  const upload = `${bucket.options.prefix}uploads/theirs`
  return [
    ['find', () => blobs.find(sha256)],
    ['read', async () => buffer(await blobs.read(sha256, { verify: true }))],
    ['list', () => blobs.list()[Symbol.asyncIterator]().next()],
    ['stageObject', () => blobs.stageObject(upload).then((staged) => staged.commit())],
    ['sweepStaged', () => blobs.sweepStaged(-1_000)],
    ['store', () => store(blobs, small)],
    ['store in parts', () => store(blobs, large)],
    ['remove', () => blobs.remove(sha256)],
  ]
}

describe.skipIf(s3Endpoint === null)('S3 that fails', () => {
  let bucket: TestBucket
  /** Past whatever is made to fail. */
  let direct: Blobs
  let opened: Blobs[]
  let rejections: unknown[]
  const onRejection = (reason: unknown) => void rejections.push(reason)

  const open = (options: Partial<S3Options>) => {
    const blobs = openS3({ ...bucket.options, ...LIMITS, ...options })
    opened.push(blobs)
    return blobs
  }
  beforeAll(async () => {
    bucket = await makeBucket()
    direct = openS3(bucket.options)
  })
  afterAll(async () => {
    await direct?.close()
    await bucket?.remove()
  })
  beforeEach(() => {
    opened = []
    rejections = []
    process.on('unhandledRejection', onRejection)
  })
  afterEach(async () => {
    for (const blobs of opened) await blobs.close()
    await delay(20)
    process.off('unhandledRejection', onRejection)
    expect(rejections).toEqual([])
    await bucket.empty()
  })
  const expectNothing = async (left = 0) => {
    for (const bytes of [small, large]) expect(await direct.find(shaOf(bytes))).toBeUndefined()
    expect(await direct.sweepStaged(-1_000)).toBe(left)
    expect(await bucket.keys()).toEqual([])
    expect(await bucket.uploads()).toEqual([])
  }

  describe('with errors of its own', () => {
    let proxy: S3Proxy
    let blobs: Blobs
    beforeEach(async () => {
      proxy = await startS3Proxy(s3Endpoint as string)
      blobs = open({ endpoint: proxy.endpoint })
    })
    afterEach(() => proxy.close())

    test.each([
      ['InternalError', s3Error(500, 'InternalError'), 2, 0],
      ['SlowDown', s3Error(503, 'SlowDown'), 1, 0],
      ['no S3 at all', { status: 502, body: '<html>bad gateway</html>' }, 2, 0],
      // of an upload that was begun thrice, two are left
      ['a lost answer', 'lose-answer' as const, 2, 2],
    ])('that go away are not noticed: %s', async (_, fault, times, left) => {
      await store(direct, small)
      await bucket.put(`${bucket.options.prefix}uploads/theirs`, randomBytes(100))
      proxy.inject((_request, again) => (again < times ? fault : undefined))
      for (const [name, ask] of asking(blobs, bucket)) await expect(ask(), name).resolves.not.toThrow()
      proxy.inject(() => undefined)
      expect(await direct.find(shaOf(small))).toBeUndefined()
      expect(shaOf(await buffer(await direct.read(shaOf(large))))).toBe(shaOf(large))
      expect(await direct.sweepStaged(-1_000)).toBe(left)
    })

    test.each([
      ['InternalError', s3Error(500, 'InternalError')],
      ['ServiceUnavailable', s3Error(503, 'ServiceUnavailable')],
      ['HTTP 502', { status: 502, body: '<html>bad gateway</html>' }],
      ['HTTP 500', { status: 500 }],
    ])('that stay are unavailable: %s', async (code, fault) => {
      proxy.inject(() => fault)
      for (const [name, ask] of asking(blobs, bucket)) {
        const { message, details } = await failure(ask())
        // an answer to HEAD has no body to say more
        if (name !== 'find' && name !== 'stageObject' && name !== 'store')
          expect([name, details.code]).toEqual([name, code])
        expect(message).toMatch(/^S3 bucket \S+ at 127\.0\.0\.1:\d+ failed: /)
      }
      await expectNothing()
    })

    test.each([
      ['a part', (query: URLSearchParams) => query.has('partNumber')],
      [
        'the end of its parts',
        (query: URLSearchParams, method: string) => query.has('uploadId') && method === 'POST',
      ],
    ])('at %s of an upload: it is given up', async (_, matches) => {
      proxy.inject(({ query, method }) =>
        matches(query, method) ? s3Error(500, 'InternalError') : undefined,
      )
      await failure(store(blobs, large))
      expect(proxy.requests.at(-1)).toMatchObject({ method: 'DELETE' })
      await expectNothing()
    })

    test('from the middle of an upload on: what is left is swept', async () => {
      proxy.inject(({ query }) =>
        Number(query.get('partNumber')) === 1 || query.has('uploads')
          ? undefined
          : s3Error(500, 'InternalError'),
      )
      const { log, logged } = recordingLog()
      await failure(store(open({ endpoint: proxy.endpoint, log }), large))
      expect(logged.map(({ message }) => message)).toEqual(['an upload that failed is left to be swept'])
      await expectNothing(1)
    })

    test('at the commit: it may be tried again', async () => {
      for (const bytes of [small, large]) {
        const staged = await stage(blobs, bytes)
        proxy.inject(({ method }) => (method === 'PUT' ? s3Error(503, 'SlowDown') : undefined))
        await failure(staged.commit())
        expect(await direct.find(shaOf(bytes))).toBeUndefined()
        proxy.inject(() => undefined)
        expect(await staged.commit()).toEqual({ existed: false })
        expect(shaOf(await buffer(await direct.read(shaOf(bytes))))).toBe(shaOf(bytes))
        expect(await direct.sweepStaged(-1_000)).toBe(0)
        await staged.discard()
        await direct.remove(shaOf(bytes))
      }
    })

    test('after the commit: the bytes are there', async () => {
      proxy.inject(({ method }) => (method === 'DELETE' ? s3Error(500, 'InternalError') : undefined))
      const { log, logged } = recordingLog()
      const staged = await stage(open({ endpoint: proxy.endpoint, log }), large)
      expect(await staged.commit()).toEqual({ existed: false })
      expect(logged.map(({ message }) => message)).toEqual(['a staged object is left to be swept'])
      expect(shaOf(await buffer(await direct.read(shaOf(large))))).toBe(shaOf(large))
      expect(await direct.sweepStaged(-1_000)).toBe(1)
    })

    test('a server that knows no condition takes the bytes all the same', async () => {
      proxy.inject(({ method }, again) =>
        method === 'PUT' && again === 0 ? s3Error(501, 'NotImplemented') : undefined,
      )
      expect(await store(blobs, small)).toEqual({ existed: false })
      expect(await direct.find(shaOf(small))).toMatchObject({ size: 1_000 })
    })

    test('an answer that is cut short is no shorter file', async () => {
      await store(direct, large)
      for (const cutAfter of [0, 1, 1_000]) {
        proxy.inject(({ method }) => (method === 'GET' ? { cutAfter } : undefined))
        for (const options of [{}, { verify: true }, { start: 5 }])
          await failure(blobs.read(shaOf(large), options).then(buffer))
      }
    })
  })

  describe('that goes away', () => {
    let proxy: TcpProxy
    let blobs: Blobs
    beforeEach(async () => {
      const { hostname: host, port } = new URL(s3Endpoint as string)
      proxy = await startTcpProxy({ host, port: Number(port) })
      blobs = open({ endpoint: `http://127.0.0.1:${proxy.port}` })
    })
    afterEach(() => proxy.close())
    const goneAfter = async function* (bytes: Uint8Array, count: number, go: () => void) {
      yield bytes.subarray(0, count)
      go()
      yield bytes.subarray(count)
    }

    test('before anything was asked', async () => {
      proxy.cut()
      for (const [, ask] of asking(blobs, bucket)) await failure(ask())
      proxy.restore()
      await expectNothing()
      await store(blobs, small)
    })

    test('in the middle of an upload', async () => {
      await failure(blobs.stage(goneAfter(large, 11 * MiB, () => proxy.cut())))
      await expectNothing(1)
      proxy.restore()
      await store(blobs, large)
    })

    test('between staging and commit', async () => {
      for (const bytes of [small, large]) {
        const staged = await stage(blobs, bytes)
        proxy.cut()
        await failure(staged.commit())
        proxy.restore()
        await staged.discard()
        await expectNothing()
      }
    })

    test('in the middle of a download', async () => {
      await store(direct, large)
      for (const verify of [true, false]) {
        const stream = await blobs.read(shaOf(large), { verify })
        let count = 0
        const reading = async () => {
          for await (const chunk of stream) {
            count += chunk.length
            proxy.cut()
          }
        }
        await failure(reading())
        expect(count).toBeLessThan(large.length)
        proxy.restore()
      }
    })

    test('without a word', async () => {
      const hanging = await stage(blobs, large)
      await store(direct, small)
      const stream = await blobs.read(shaOf(small))
      await buffer(stream)
      proxy.silence()
      for (const ask of [
        () => hanging.commit(),
        () => blobs.find(shaOf(small)),
        () => blobs.read(shaOf(small)),
      ])
        expect((await failure(ask())).details.code).toBe('timeout')
      proxy.restore()
      expect(await blobs.find(shaOf(small))).toMatchObject({ size: 1_000 })
      await hanging.discard()
    })

    test('without a word in the middle of an upload', async () => {
      const { details } = await failure(blobs.stage(goneAfter(large, 11 * MiB, () => proxy.silence())))
      expect(details.code).toBe('timeout')
      await expectNothing(1)
    })

    test('without a word in the middle of a download', async () => {
      await store(direct, large)
      const stream = await blobs.read(shaOf(large))
      const reading = async () => {
        for await (const _ of stream) proxy.silence()
      }
      expect((await failure(reading())).details.code).toBe('timeout')
    })
  })

  test('a reader that takes its time has time', async () => {
    await store(direct, large)
    const blobs = open({})
    let count = 0
    for await (const chunk of await blobs.read(shaOf(large), { verify: true })) {
      if (count === 0) await delay(LIMITS.idleTimeoutMs * 2)
      count += chunk.length
      // its last bytes are in memory, and nothing more comes
      if (count > large.length - MiB / 8) await delay(LIMITS.idleTimeoutMs)
    }
    expect(count).toBe(large.length)
  })

  test('a client that goes away in the middle leaves nothing', async () => {
    const blobs = open({})
    let staged: Promise<unknown> | undefined
    const server = createServer((req) => {
      staged = blobs.stage(req)
      staged.catch(() => {})
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    const client = request({ port, host: '127.0.0.1', method: 'POST' })
    client.on('error', () => {})
    client.write(large)
    while ((await bucket.uploads()).length === 0) await delay(20)
    client.destroy()
    await expect(staged).rejects.toMatchObject({ code: 'ECONNRESET' })
    await expectNothing()
    await new Promise((resolve) => server.close(resolve))
  })

  test('nobody has credentials for it', async () => {
    const names = ['AWS_EC2_METADATA_DISABLED', 'AWS_SHARED_CREDENTIALS_FILE', 'AWS_CONFIG_FILE']
    for (const [i, name] of names.entries()) vi.stubEnv(name, i === 0 ? 'true' : '/dev/null')
    const { details } = await failure(open({ credentials: undefined }).find(shaOf(small)))
    expect(details.code).toBe('CredentialsProviderError')
    vi.unstubAllEnvs()
  })

  describe('because it is another one', () => {
    const secretAccessKey = 'anothersecretsecret'
    test.each([
      ['SignatureDoesNotMatch', { credentials: { accessKeyId: 'AKTEST', secretAccessKey } }],
      ['InvalidAccessKeyId', { credentials: { accessKeyId: 'AKNOBODY', secretAccessKey } }],
    ])('%s is named', async (code, options) => {
      const blobs = open(options)
      for (const [name, ask] of asking(blobs, bucket)) {
        const { details, message, cause } = await failure(ask())
        if (name === 'list') expect(details.code).toBe(code)
        expect(['HTTP 403', code]).toContain(details.code)
        for (const text of [message, String(cause)]) expect(text).not.toMatch(/anothersecret|AKNOBODY/)
      }
      await expectNothing()
    })

    test('a bucket that is not there is no empty one', async () => {
      const blobs = open({ bucket: 'threadbase-test-of-nobody' })
      for (const [name, ask] of asking(blobs, bucket))
        expect([name, (await failure(ask())).details.code]).toEqual([name, 'NoSuchBucket'])
    })

    test('a server that is not there', async () => {
      const blobs = open({ endpoint: 'http://127.0.0.1:9' })
      for (const [, ask] of asking(blobs, bucket))
        expect((await failure(ask())).details.code).toBe('ECONNREFUSED')
    })
  })
})
