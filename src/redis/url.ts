export type RedisAddress = {
  host: string
  port: number
  username: string | undefined
  password: string | undefined
  database: number
  tls: boolean
}

/** What a `redis://` or `rediss://` (TLS) URL names; undefined when it is none. A query is not understood. */
export function parseRedisUrl(text: string): RedisAddress | undefined {
  if (!/^rediss?:\/\//.test(text) || !URL.canParse(text)) return undefined
  const { protocol, hostname, port, username, password, pathname, search } = new URL(text)
  const database = pathname.replace(/^\//, '') || '0'
  if (hostname === '' || search !== '' || !/^\d{1,5}$/.test(database)) return undefined
  try {
    return {
      // IPv6 has brackets in a URL only
      host: decodeURIComponent(hostname).replace(/^\[(.*)\]$/, '$1'),
      port: port === '' ? 6379 : Number(port),
      username: username === '' ? undefined : decodeURIComponent(username),
      password: password === '' ? undefined : decodeURIComponent(password),
      database: Number(database),
      tls: protocol === 'rediss:',
    }
  } catch {
    return undefined
  }
}

/** Host and port, and the database unless it is the first: what is no secret. */
export function describeRedis({ host, port, database }: RedisAddress): string {
  const name = host.includes(':') ? `[${host}]` : host
  return `Redis at ${name}:${port}${database === 0 ? '' : `/${database}`}`
}
