import { connect, type Socket } from 'node:net'

/**
 * Posts JSON over `connections` kept-alive connections, one request at a time each, for `seconds`. Plain sockets:
 * a full HTTP client would spend more than the server it measures. Answers with requests per second; fails on the
 * first status that is not 2xx.
 */
export async function postLoad(
  url: URL,
  options: {
    connections: number
    seconds: number
    next: (connection: number) => { path: string; body: string }
  },
): Promise<number> {
  const until = performance.now() + options.seconds * 1_000
  const started = performance.now()
  const counts = await Promise.all(
    Array.from({ length: options.connections }, (_, i) => runConnection(url, until, () => options.next(i))),
  )
  const total = counts.reduce((sum, count) => sum + count, 0)
  return total / ((performance.now() - started) / 1_000)
}

async function runConnection(
  url: URL,
  until: number,
  next: () => { path: string; body: string },
): Promise<number> {
  const socket = await open(url)
  try {
    const answers = responseReader(socket)
    let count = 0
    while (performance.now() < until) {
      const { path, body } = next()
      socket.write(
        `POST ${path} HTTP/1.1\r\nhost: ${url.host}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
      )
      const status = await answers()
      if (status < 200 || status > 299) throw new Error(`the server answered ${status} to POST ${path}`)
      count++
    }
    return count
  } finally {
    socket.destroy()
  }
}

export type Client = {
  /** Times of requests one after another, in ms. Fails on the first status that is not 200. */
  get(path: string, requests: number): Promise<number[]>
  close(): void
}

/** One kept-alive connection that sends the given headers with each request. */
export async function openClient(url: URL, headers: Record<string, string>): Promise<Client> {
  const socket = await open(url)
  const answers = responseReader(socket)
  const lines = Object.entries({ host: url.host, ...headers }).map(([name, value]) => `${name}: ${value}\r\n`)
  return {
    async get(path, requests) {
      const request = `GET ${path} HTTP/1.1\r\n${lines.join('')}\r\n`
      const times: number[] = []
      for (let i = 0; i < requests; i++) {
        const started = performance.now()
        socket.write(request)
        const status = await answers()
        times.push(performance.now() - started)
        if (status !== 200) throw new Error(`the server answered ${status} to GET ${path}`)
      }
      return times
    },
    close: () => void socket.destroy(),
  }
}

async function open(url: URL): Promise<Socket> {
  const socket = connect({ host: url.hostname, port: Number(url.port), noDelay: true })
  await new Promise<void>((resolve, reject) => socket.once('connect', resolve).once('error', reject))
  return socket
}

/** A function that waits for the next whole response and gives its status. */
function responseReader(socket: Socket): () => Promise<number> {
  let pending = ''
  let wanted: { resolve: (status: number) => void; reject: (error: Error) => void } | undefined
  const settle = () => {
    const end = pending.indexOf('\r\n\r\n')
    if (end < 0 || wanted === undefined) return
    const length = Number(/content-length: (\d+)/i.exec(pending)?.[1] ?? 0)
    if (pending.length < end + 4 + length) return
    const status = Number(pending.slice(9, 12))
    pending = pending.slice(end + 4 + length)
    wanted.resolve(status)
    wanted = undefined
  }
  socket.setEncoding('latin1')
  socket.on('data', (chunk: string) => {
    pending += chunk
    settle()
  })
  socket.on('close', () => wanted?.reject(new Error('the server closed the connection')))
  return () =>
    new Promise((resolve, reject) => {
      wanted = { resolve, reject }
      settle()
    })
}
