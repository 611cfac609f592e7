import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { rm, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, test } from 'vitest'
import { ACCOUNTS, newAccount } from '../../test/accounts.ts'
import { storedHashes, sweepStaged } from '../../test/bytes.ts'
import { FORM, filePart, formOf } from '../../test/forms.ts'
import { describeApi, refusal } from '../../test/http.ts'
import { dial } from '../../test/raw-http.ts'
import { announce } from '../../test/uploads.ts'

const LIMIT = 1_000_000
const OCTETS = { 'content-type': 'application/octet-stream' }
const hasCurl = await promisify(execFile)('curl', ['--version']).then(
  () => true,
  () => false,
)

describeApi(
  'uploads to a server that listens',
  (api) => {
    let port: number
    beforeAll(async () => {
      await api.app.listen({ host: '127.0.0.1', port: 0 })
      port = (api.app.server.address() as AddressInfo).port
    })

    const stored = async () => [
      (await api.call('GET', '/api/files?limit=200')).body.items.length,
      (await storedHashes(api.opened)).length,
      await sweepStaged(api.opened),
    ]
    const errors = () => api.logged.filter(({ level }) => level >= 50)

    /** Sends chunks for as long as the server takes them, and reads its answer as a client does that waits for one. */
    function send(
      path: string,
      headers: Record<string, string>,
      chunks: Iterable<Uint8Array>,
      method = 'POST',
    ) {
      return new Promise<{ status: number; body: { error?: { code: string }; id?: string }; sent: number }>(
        (resolve, reject) => {
          const client = request({ port, method, path, headers })
          let sent = 0
          client.on('error', reject)
          client.on('response', async (response) => {
            let text = ''
            for await (const chunk of response) text += chunk
            client.removeAllListeners('error').on('error', () => {})
            resolve({ status: response.statusCode ?? 0, body: text === '' ? {} : JSON.parse(text), sent })
            client.destroy()
          })
          const next = async () => {
            for (const chunk of chunks) {
              if (client.destroyed || client.writableEnded) return
              sent += chunk.length
              if (!client.write(chunk))
                await Promise.race([new Promise((go) => client.once('drain', go)), delay(2_000)])
            }
            client.end()
          }
          void next()
        },
      )
    }
    function* repeat(chunk: Uint8Array, times: number) {
      for (let n = 0; n < times; n++) yield chunk
    }
    const chunk = Buffer.alloc(100_000, 'x')

    test('bytes of any number come in as they are sent', async () => {
      const { status, body } = await send('/api/files', OCTETS, repeat(chunk, 10))
      expect([status, body]).toMatchObject([201, announce(Buffer.alloc(LIMIT, 'x'))])
      const url = `http://127.0.0.1:${port}/api/files/${body.id}`
      const answer = await fetch(`${url}/download`)
      expect(answer.status).toBe(200)
      expect(Buffer.from(await answer.arrayBuffer()).equals(Buffer.alloc(LIMIT, 'x'))).toBe(true)
      const head = await fetch(`${url}/content`, { method: 'HEAD' })
      expect([head.status, head.headers.get('content-length')]).toEqual([200, String(LIMIT)])
    })

    const tooLarge = { status: 413, body: { error: { code: 'too_large' } } }

    test('too many, announced: refused at once', async () => {
      const before = await stored()
      const headers = { ...OCTETS, 'content-length': String(chunk.length * 200) }
      const answer = await send('/api/files', headers, repeat(chunk, 200))
      expect(answer).toMatchObject(tooLarge)
      expect(await stored()).toEqual(before)
    })

    test.each([11, 200])(
      'too many, on the way: refused as soon as they are (%i times 100,000)',
      async (times) => {
        const before = await stored()
        expect(await send('/api/files', OCTETS, repeat(chunk, times))).toMatchObject(tooLarge)
        const thread = await api.newThread()
        expect(await send(`/api/threads/${thread}/artifacts`, OCTETS, repeat(chunk, times))).toMatchObject(
          tooLarge,
        )
        expect(await stored()).toEqual(before)
      },
    )

    test.each([11, 200])('too many in a form (%i times 100,000)', async (times) => {
      const before = await stored()
      const form = formOf(filePart('x'))
      const at = form.indexOf('\r\nx\r\n') + 3
      const parts = [form.subarray(0, at), ...repeat(chunk, times), form.subarray(at)]
      expect(await send('/api/files', FORM, parts)).toMatchObject(tooLarge)
      const headers = {
        ...FORM,
        'content-length': String(parts.reduce((sum, { length }) => sum + length, 0)),
      }
      expect(await send('/api/files', headers, parts)).toMatchObject(tooLarge)
      expect(await stored()).toEqual(before)
    })

    test('a thread that is not there is answered while the bytes still come', async () => {
      const answer = await send(`/api/threads/${randomUUID()}/artifacts`, OCTETS, repeat(chunk, 9))
      expect(answer).toMatchObject({ status: 404, body: { error: { code: 'not_found' } } })
    })

    test('other bytes than announced, in the query or by the URL that was presigned', async () => {
      const before = await stored()
      const query = `?sha256=${'a'.repeat(64)}`
      expect(await send(`/api/files${query}`, OCTETS, repeat(chunk, 9))).toMatchObject({ status: 400 })
      const { body } = await api.call('POST', '/api/files/uploads', announce('right'))
      expect(await send(body.url, OCTETS, repeat(chunk, 50), 'PUT')).toMatchObject({ status: 400 })
      expect(await send(body.url, OCTETS, [Buffer.from('wrong')], 'PUT')).toMatchObject({ status: 400 })
      expect(await send(body.url, OCTETS, [Buffer.from('right')], 'PUT')).toMatchObject({ status: 200 })
      expect((await api.call('POST', `/api/files/uploads/${body.token}/complete`)).status).toBe(201)
      await api.call('DELETE', `/api/files/${body.token}`)
      await api.opened.tb.upkeep.collect({ graceS: 0 })
      expect(await stored()).toEqual(before)
    })

    describe.skipIf(!hasCurl)('curl', () => {
      const curl = async (...args: string[]) => {
        const url = `http://127.0.0.1:${port}/api/files`
        const options = ['-sS', '-o', '-', '-w', '\n%{http_code}', ...args, url]
        const running = promisify(execFile)('curl', options, { maxBuffer: 10_000_000 })
        const { stdout } = await running
        return { status: Number(stdout.split('\n').at(-1)), body: JSON.parse(stdout.split('\n')[0] ?? '') }
      }

      test('reads the answer to too many bytes', async () => {
        const before = await stored()
        const big = join(tmpdir(), `threadbase-test-${randomUUID()}`)
        await writeFile(big, Buffer.alloc(30_000_000))
        for (const args of [
          ['--data-binary', `@${big}`],
          ['-F', `file=@${big}`],
          ['-T', big, '-X', 'POST', '-H', 'transfer-encoding: chunked', '-H', 'expect:'],
        ])
          expect(await curl(...args), args.join(' ')).toMatchObject(tooLarge)
        await rm(big)
        expect(await stored()).toEqual(before)
      })
    })

    test('a client that goes away in the middle leaves nothing, and is no error', async () => {
      const before = await stored()
      const thread = await api.newThread()
      const { body } = await api.call('POST', '/api/files/uploads', announce(Buffer.alloc(100_000, 'x')))
      const form = formOf(filePart(Buffer.alloc(100_000, 'x')))
      const heads: [method: string, path: string, type: string, bytes: Buffer][] = [
        ['POST', '/api/files', OCTETS['content-type'], chunk],
        ['POST', '/api/files', FORM['content-type'], form],
        ['POST', `/api/threads/${thread}/artifacts`, 'text/plain', chunk],
        ['PUT', body.url, OCTETS['content-type'], chunk],
      ]
      for (const [method, path, type, bytes] of heads)
        for (const framing of [`content-length: ${bytes.length}`, 'transfer-encoding: chunked']) {
          const client = dial(port)
          client.socket.write(
            `${method} ${path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: ${type}\r\n${framing}\r\n\r\n`,
          )
          const half = bytes.subarray(0, bytes.length / 2)
          if (framing.startsWith('content')) client.socket.write(half)
          else
            client.socket.write(
              Buffer.concat([Buffer.from(`${half.length.toString(16)}\r\n`), half, Buffer.from('\r\n')]),
            )
          await delay(150)
          client.socket.destroy()
          await client.ended
        }
      await delay(300)
      expect(await stored()).toEqual(before)
      expect(errors()).toEqual([])
    })

    test('a body that ends before its length is refused, and leaves nothing', async () => {
      const before = await stored()
      const client = dial(port)
      client.socket.write(
        'POST /api/files HTTP/1.1\r\nhost: localhost\r\ncontent-type: a/b\r\ncontent-length: 10\r\n\r\nhalf',
      )
      await delay(100)
      client.socket.end()
      await client.ended
      await delay(200)
      expect(client.text()).not.toContain('201')
      expect(await stored()).toEqual(before)
      expect(errors()).toEqual([])
    })

    test('a reader that goes away in the middle is no error', async () => {
      const { body } = await send('/api/files', OCTETS, repeat(chunk, 10))
      for (let n = 0; n < 5; n++) {
        const client = dial(port)
        client.socket.write(`GET /api/files/${body.id}/content HTTP/1.1\r\nhost: localhost\r\n\r\n`)
        await client.until('200 OK')
        client.socket.destroy()
        await client.ended
      }
      await delay(100)
      expect(errors()).toEqual([])
    })
  },
  { uploadLimitBytes: LIMIT },
)

describeApi(
  'uploads from browsers',
  (api) => {
    test('a form with cookies needs the token of the session, and a page of our own', async () => {
      const { username, password } = await newAccount(api.opened.tb)
      const page = { origin: 'http://localhost:80', host: 'localhost:80', 'sec-fetch-site': 'same-origin' }
      const signedIn = await api.app.inject({
        method: 'POST',
        url: '/api/login',
        payload: { username, password },
        headers: page,
      })
      const cookie = [signedIn.headers['set-cookie']]
        .flat()
        .map((line) => String(line).split(';')[0])
        .join('; ')
      const token =
        (await api.call('GET', '/api/me', undefined, { cookie })).headers['x-csrf-token'] ??
        (await api.call('GET', '/api/me', undefined, { cookie })).body.csrf_token
      const upload = (headers: Record<string, string>) =>
        api.call('POST', '/api/files', formOf(filePart('x')), { ...FORM, cookie, ...headers })
      expect(refusal(await upload({ ...page }))).toMatchObject({ status: 403 })
      expect(refusal(await upload({ ...page, 'x-csrf-token': 'x' }))).toMatchObject({ status: 403 })
      expect(refusal(await upload({ 'x-csrf-token': token, origin: 'https://evil.example' }))).toMatchObject({
        status: 403,
      })
      expect((await upload({ ...page, 'x-csrf-token': token })).status).toBe(201)
    })
  },
  { auth: ACCOUNTS },
)
