import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { exportJWK, generateKeyPair, type JWK, type JWTHeaderParameters, SignJWT } from 'jose'

/** A key of an identity provider: its public half as the JWKS shows it, and what signs with the other. */
export type ProviderKey = {
  jwk: JWK
  sign(claims: Record<string, unknown>, header?: Partial<JWTHeaderParameters>): Promise<string>
}

export type JwksServer = {
  url: string
  issuer: string
  /** How often the keys were asked for. */
  requests(): number
  /** What it answers from now on: keys, or a text under a status. */
  answer(keys: ProviderKey[] | { status?: number; text: string; headers?: Record<string, string> }): void
  /** Accepts requests and answers none. */
  hang(): void
  close(): Promise<void>
}

export async function newProviderKey(kid: string | undefined, alg = 'RS256'): Promise<ProviderKey> {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true })
  const jwk = { ...(await exportJWK(publicKey)), ...(kid === undefined ? {} : { kid }), alg, use: 'sig' }
  return {
    jwk,
    sign: (claims, header = {}) =>
      new SignJWT(claims).setProtectedHeader({ alg, kid, ...header }).sign(privateKey),
  }
}

/** The JWKS URL of an identity provider on the loopback address. */
export async function startJwksServer(): Promise<JwksServer> {
  let requests = 0
  let reply: { status: number; text: string; headers?: Record<string, string> } | 'nothing' = {
    status: 200,
    text: '{"keys":[]}',
  }
  const server = createServer((_request, response) => {
    requests++
    if (reply === 'nothing') return
    response.writeHead(reply.status, { 'content-type': 'application/json', ...reply.headers }).end(reply.text)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    url: `${origin}/.well-known/jwks.json`,
    issuer: origin,
    requests: () => requests,
    answer: (given) => {
      reply = Array.isArray(given)
        ? { status: 200, text: JSON.stringify({ keys: given.map(({ jwk }) => jwk) }) }
        : { status: 200, ...given }
    },
    hang: () => {
      reply = 'nothing'
    },
    close: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
