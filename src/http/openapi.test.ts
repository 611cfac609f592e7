import { Validator } from '@seriousme/openapi-schema-validator'
import { expect, test } from 'vitest'
import { describeApi, type Json } from '../../test/http.ts'

const METHODS = ['get', 'put', 'post', 'patch', 'delete']

type Operation = { path: string; method: string; operation: Json }

function operationsOf(document: Json): Operation[] {
  return Object.entries<Json>(document.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => method in item).map((method) => ({ path, method, operation: item[method] })),
  )
}

/** Every value within a document, with the path to it. */
function* walk(value: Json, path = '#'): Generator<[string, Json]> {
  yield [path, value]
  if (typeof value !== 'object' || value === null) return
  for (const [key, item] of Object.entries(value)) yield* walk(item, `${path}/${key}`)
}

describeApi('the OpenAPI document', (api) => {
  const read = async (): Promise<Json> => (await api.call('GET', '/openapi.json')).body

  test('is valid OpenAPI 3.1', async () => {
    const document = await read()
    expect(document.openapi).toMatch(/^3\.1/)
    const result = await new Validator().validate(document)
    expect(result.errors ?? []).toEqual([])
    expect(result.valid).toBe(true)
    // the validator sees mistakes
    const broken = await new Validator().validate({ ...document, paths: { '/x': { get: { responses: 1 } } } })
    expect(broken.valid).toBe(false)
  })

  test('every reference leads somewhere', async () => {
    const document = await read()
    const references = [...walk(document)].filter(([path]) => path.endsWith('/$ref'))
    expect(references.length).toBeGreaterThan(10)
    for (const [path, reference] of references) {
      expect(reference, path).toMatch(/^#\//)
      let target = document
      for (const part of reference.slice(2).split('/')) target = target?.[part]
      expect(target, `${path} → ${reference}`).toBeTypeOf('object')
    }
  })

  test('holds every route of the app and no other', async () => {
    const routes = api.app
      .printRoutes({ commonPrefix: false, includeHooks: false })
      .split('\n')
      .flatMap((line) => {
        const found = /[├└]── (\S+) \(([A-Z, ]+)\)/.exec(line)
        return found === null
          ? []
          : [{ indent: line.search(/[├└]/), part: String(found[1]), methods: String(found[2]) }]
      })
    const urls = flatten(routes).filter((route) => !/ \/(docs|openapi\.json)/.test(route))
    const documented = operationsOf(await read()).map(
      ({ path, method }) => `${method.toUpperCase()} ${path.replace(/\{(\w+)\}/g, ':$1')}`,
    )
    expect(urls.length).toBeGreaterThan(15)
    expect(documented.sort()).toEqual(urls.sort())
  })

  test('every operation has a name of its own', async () => {
    const names = operationsOf(await read()).map(({ operation }) => operation.operationId)
    expect(names).toContain('appendMessages')
    expect(new Set(names).size).toBe(names.length)
  })

  test('every operation says what it does, what it takes and how it fails', async () => {
    const document = await read()
    const tags = document.tags.map(({ name }: Json) => name)
    for (const { path, method, operation } of operationsOf(document)) {
      const where = `${method} ${path}`
      expect(operation.summary, where).toMatch(/^[A-Z].{5,}[^.]$/)
      expect(operation.operationId, where).toMatch(/^[a-z]+([A-Z][a-z]+)+$/)
      expect(operation.tags, where).toHaveLength(1)
      expect(tags, where).toContain(operation.tags[0])
      const statuses = Object.keys(operation.responses)
      expect(
        statuses.some((status) => /^(2\d\d|307)$/.test(status)),
        where,
      ).toBe(true)
      for (const group of ['4XX', '5XX'])
        expect(
          operation.responses[group]?.content?.['application/json']?.schema,
          `${where} ${group}`,
        ).toEqual({
          $ref: '#/components/schemas/Error',
        })
      const named = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name)
      const declared = (operation.parameters ?? []).filter((parameter: Json) => parameter.in === 'path')
      expect(declared.map(({ name }: Json) => name).sort(), where).toEqual(named.sort())
      for (const parameter of declared) expect(parameter.required, where).toBe(true)
      if (operation.responses['204'] !== undefined)
        expect(operation.responses['204'], where).not.toHaveProperty('content')
      const schema = operation.requestBody?.content['application/json']?.schema
      if (schema?.required?.length > 0) expect(operation.requestBody.required, where).toBe(true)
      else if (schema !== undefined && schema.anyOf === undefined && schema.minProperties === undefined)
        expect(operation.requestBody.required ?? false, where).toBe(false)
    }
  })

  test('all names are snake_case', async () => {
    const document = await read()
    const names: string[] = []
    for (const [path, value] of walk(document)) {
      if (path.endsWith('/properties')) names.push(...Object.keys(value))
      if (/\/parameters\/\d+$/.test(path) && value.in !== 'header') names.push(value.name)
      if (path.endsWith('/enum')) names.push(...value)
    }
    expect(names).toContain('created_at')
    // the value of AUTH_MODE, as it is spelt there, and a method of HTTP
    const known = ['single-user', 'PUT']
    const odd = names.filter((name) => !/^[a-z][a-z0-9]*(_[a-z0-9]+)*$/.test(name) && !known.includes(name))
    expect(odd).toEqual([])
  })

  test('/docs shows it, and what the page loads is there', async () => {
    for (const url of ['/docs', '/docs/']) {
      const page = await api.call('GET', url)
      expect(page.status).toBe(200)
      expect(page.headers['content-type']).toContain('text/html')
      const assets = [...page.text.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, link]) => String(link))
      expect(assets.length).toBeGreaterThan(3)
      for (const link of assets) {
        // nothing from other servers
        expect(link).toMatch(/^(\.|\/)/)
        const asset = await api.call('GET', new URL(link, `http://localhost${url}`).pathname)
        expect(asset.status, link).toBe(200)
        expect(asset.text.length, link).toBeGreaterThan(0)
      }
      const policy = String(page.headers['content-security-policy'])
      expect(policy).toContain("default-src 'self'")
      expect(policy).not.toContain('upgrade-insecure-requests')
    }
    const initializer = await api.call('GET', '/docs/static/swagger-initializer.js')
    expect(initializer.text).toContain("resolveUrl('./json')")
    expect((await api.call('GET', '/docs/json')).body).toEqual(await read())
  })
})

type Line = { indent: number; part: string; methods: string }

/** The tree that Fastify prints, as `METHOD /path`; HEAD comes with every GET. */
function flatten(lines: Line[]): string[] {
  const open: Line[] = []
  return lines.flatMap((line) => {
    while ((open.at(-1)?.indent ?? -1) >= line.indent) open.pop()
    open.push(line)
    const url = open.map(({ part }) => part).join('')
    return line.methods
      .split(', ')
      .filter((method) => method !== 'HEAD')
      .map((method) => `${method} ${url}`)
  })
}
