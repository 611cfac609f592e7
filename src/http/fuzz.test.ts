import fc from 'fast-check'
import { Compile, type Validator } from 'typebox/compile'
import { expect, test } from 'vitest'
import { describeApi, type Json } from '../../test/http.ts'
import { anyRequest } from '../../test/requests.ts'

const RUNS = 400

describeApi('requests made from the OpenAPI document', (api) => {
  test('are answered as the document says, or refused: never a 5xx', async () => {
    const document = (await api.call('GET', '/openapi.json')).body
    const validators = new Map<Json, Validator>()
    const accepts = (schema: Json, value: unknown): boolean => {
      const validator = validators.get(schema) ?? Compile(schema)
      validators.set(schema, validator)
      return validator.Check(value)
    }
    const ids = { id: [await api.newThread(), await api.newThread()], message: [] as string[] }
    const first = await api.call('POST', `/api/threads/${ids.id[0]}/messages`, { role: 'user', content: 'x' })
    ids.message.push(first.body.id)
    const statuses = new Map<number, number>()

    await fc.assert(
      fc.asyncProperty(anyRequest(document), async (request) => {
        const { method, body, headers, operation } = request
        const url = request.url(ids)
        // checks the shape of every refusal
        const answer = await api.call(method, url, body, headers)
        statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1)
        const what = `${method} ${url} ${body} → ${answer.status} ${answer.text}`
        expect(answer.status, what).toBeLessThan(500)
        if (answer.status >= 400) return
        const described = operation.responses[answer.status]
        expect(described, what).toBeDefined()
        const schema = described.content?.['application/json']?.schema
        const otherTypes = Object.keys(described.content ?? {}).filter((type) => type !== 'application/json')
        if (otherTypes.length > 0)
          expect(otherTypes, what).toContain(answer.headers['content-type']?.split(';')[0])
        else if (schema === undefined) expect(answer.text, what).toBe('')
        else expect(accepts(schema, answer.body), what).toBe(true)
        if (answer.status !== 201) return
        if (url.includes('/messages'))
          ids.message.push(...[answer.body.items ?? answer.body].flat().map(({ id }) => id))
        else ids.id.push(answer.body.id)
      }),
      { numRuns: RUNS, endOnFailure: true },
    )
    // it did reach what it was made for
    for (const status of [200, 201, 204, 400, 404])
      expect(statuses.get(status) ?? 0, `${status}`).toBeGreaterThan(2)
    const errors = api.logged.filter(({ level }) => level >= 50)
    expect(errors).toEqual([])
  })
})
