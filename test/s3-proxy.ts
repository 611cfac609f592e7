import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** What becomes of a request: it goes on to the server (undefined), or this happens to it. */
export type Fault =
  | undefined
  /** Answered so, by nobody that S3 knows. The request goes no further. */
  | { status: number; body?: string }
  /** Done, but the answer is lost with the connection. */
  | 'lose-answer'
  /** Done, but of the answer's body only that much comes; then the connection ends. */
  | { cutAfter: number }

export type S3Request = { method: string; path: string; query: URLSearchParams }

export type S3Proxy = {
  endpoint: string
  /** The requests that came, oldest first. */
  requests: S3Request[]
  /** From now on. `again`: how many came before with the same method, path and query. */
  inject(choose: (request: S3Request, again: number) => Fault): void
  close(): Promise<void>
}

/** Stands between the client and the S3 server, which sees the requests as they were signed. */
export async function startS3Proxy(target: string): Promise<S3Proxy> {
  let choose: (request: S3Request, again: number) => Fault = () => undefined
  let seen = new Map<string, number>()
  const requests: S3Request[] = []
  const server = createServer((req, res) => {
    const { pathname, searchParams } = new URL(req.url ?? '/', target)
    const one = { method: req.method ?? '', path: pathname, query: searchParams }
    const name = `${one.method} ${req.url}`
    const again = seen.get(name) ?? 0
    seen.set(name, again + 1)
    requests.push(one)
    answer(target, req, res, choose(one, again))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    inject(chosen) {
      choose = chosen
      seen = new Map()
    },
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

function answer(target: string, req: IncomingMessage, res: ServerResponse, fault: Fault): void {
  if (typeof fault === 'object' && 'status' in fault) {
    req.resume().once('end', () => res.writeHead(fault.status).end(fault.body))
    return
  }
  const { hostname, port } = new URL(target)
  const { method, url: path, headers } = req
  const upstream = request({ hostname, port, method, path, headers }, (from) => {
    if (fault === 'lose-answer') {
      from.resume().once('end', () => res.destroy())
      return
    }
    res.writeHead(from.statusCode ?? 500, from.headers)
    if (fault === undefined) {
      from.pipe(res)
      return
    }
    from.once('data', (chunk: Buffer) => {
      res.write(chunk.subarray(0, fault.cutAfter), () => res.destroy())
      from.destroy()
    })
  })
  upstream.on('error', () => res.destroy())
  req.on('error', () => upstream.destroy())
  req.pipe(upstream)
}

/** As S3 says it. */
export const s3Error = (status: number, code: string): Fault => ({
  status,
  body: `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code><Message>Not now.</Message></Error>`,
})
