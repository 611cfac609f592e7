import { expect } from 'vitest'
import { maskOf } from '../src/credentials/vault.ts'
import { type Api, idsOf as ids, type Json, orMissing } from './http.ts'
import type { Context, World } from './worlds.ts'

export type Variable = { id: string; name: string; value: string; generic: boolean }

const PROVIDER_KEYS = '/api/users/me/api-keys'
export const PROVIDERS = ['openai', 'anthropic', 'x']
const masksOf = ({ providerKeys }: World) =>
  [...providerKeys].sort(([a], [b]) => (a < b ? -1 : 1)).map(([provider, key]) => [provider, maskOf(key)])

/** What a user does with keys for providers and with variables; see `acts` in worlds.ts. */
export const secretActs = {
  async 'store provider key'({ world, call, text, provider }: Context) {
    const api_key = text()
    const { status, body } = await call('PUT', `${PROVIDER_KEYS}/${provider}`, { api_key })
    expect([status, body.mask]).toEqual([world.providerKeys.has(provider) ? 200 : 201, maskOf(api_key)])
    world.providerKeys.set(provider, api_key)
  },
  async 'read provider keys'({ world, call, provider }: Context) {
    const { body } = await call('GET', PROVIDER_KEYS)
    expect(body.items.map((item: Json) => [item.provider, item.mask])).toEqual(masksOf(world))
    const { status } = await call('GET', `${PROVIDER_KEYS}/${provider}`)
    expect(status).toBe(orMissing(200, world.providerKeys.get(provider)))
  },
  async 'delete provider key'({ world, call, provider }: Context) {
    expect((await call('DELETE', `${PROVIDER_KEYS}/${provider}`)).status).toBe(204)
    world.providerKeys.delete(provider)
  },
  async 'make variable'({ world, owner, call, text, flag }: Context) {
    // half of them with a name that somebody else may have
    const name = flag ? 'NAME' : `of ${world.variables.length} ${owner.variables.length}`
    const taken = world.variables.some((one) => one.name === name)
    const value = text()
    const body = { name, value, type: flag ? 'generic' : 'credential' }
    const { status, body: made } = await call('POST', '/api/variables', body)
    expect(status).toBe(taken ? 409 : 201)
    if (!taken) world.variables.push({ id: made.id, name, value, generic: flag })
  },
  async 'list variables'({ world, call }: Context) {
    const { body } = await call('GET', '/api/variables?limit=100')
    expect(ids(body.items)).toEqual(ids(world.variables))
  },
  async 'read variable'({ call, variableId, variable }: Context) {
    const { status, body } = await call('GET', `/api/variables/${variableId}`)
    expect(status).toBe(orMissing(200, variable))
    if (variable !== undefined) expect(body.value).toBe(variable.generic ? variable.value : null)
  },
  async 'change variable'({ call, text, variableId, variable, flag }: Context) {
    const value = text()
    const patch = { value, ...(flag ? { type: 'generic' } : {}) }
    const { status } = await call('PATCH', `/api/variables/${variableId}`, patch)
    expect(status).toBe(orMissing(200, variable))
    if (variable !== undefined) Object.assign(variable, { value, generic: flag || variable.generic })
  },
  async 'delete variable'({ world, call, variableId, variable }: Context) {
    expect((await call('DELETE', `/api/variables/${variableId}`)).status).toBe(204)
    world.variables = world.variables.filter((other) => other !== variable)
  },
} satisfies Record<string, (context: Context) => Promise<void>>

/** At the end: every secret of the user, and no other. */
export async function compareSecrets({ opened: { tb } }: Api, world: World): Promise<void> {
  const { userId, providerKeys, variables } = world
  const { items } = await tb.credentials.apiKeys.list({ userId })
  expect(items.map(({ provider, mask }) => [provider, mask])).toEqual(masksOf(world))
  for (const [provider, key] of providerKeys)
    expect(await tb.credentials.forUser(userId).resolve(provider)).toBe(key)
  expect(ids((await tb.variables.list({ userId }, { limit: 100 })).items)).toEqual(ids(variables))
  for (const { name, value } of variables) expect(await tb.variables.resolve({ userId }, name)).toBe(value)
}
