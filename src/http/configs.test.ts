import { expect, test } from 'vitest'
import { describeApi, refusal } from '../../test/http.ts'

const defaults = { model: 'default-model', temperature: 0.7, systemPrompt: null, contextWindow: 8_192 }

describeApi(
  'configuration over HTTP',
  (api) => {
    test('a thread that sets nothing has the defaults, and each value says where it comes from', async () => {
      const expected = {
        model: 'default-model',
        temperature: 0.7,
        system_prompt: null,
        context_window: 8_192,
        settings: {},
        sources: {
          model: 'default',
          temperature: 'default',
          system_prompt: 'unset',
          context_window: 'default',
        },
      }
      expect(await api.call('GET', '/api/config/defaults')).toMatchObject({ status: 200, body: expected })
      const { body } = await api.call('GET', `/api/threads/${await api.newThread()}/config`)
      expect(body).toEqual(expected)
    })

    test('a temperature written with more digits than a double has is that double', async () => {
      const path = `/api/threads/${await api.newThread()}/config`
      const { status, body } = await api.call('PUT', path, '{"temperature": 0.69999999999999996}')
      expect([status, body.temperature]).toEqual([200, 0.7])
    })

    test('PUT replaces all, PATCH changes what it names, null falls back', async () => {
      const path = `/api/threads/${await api.newThread()}/config`
      const put = await api.call('PUT', path, {
        model: 'mine',
        temperature: 0,
        system_prompt: '',
        settings: { top_p: 0.5, camelCase: null },
      })
      expect(put.status).toBe(200)
      expect(put.body).toEqual({
        model: 'mine',
        temperature: 0,
        system_prompt: '',
        context_window: 8_192,
        settings: { top_p: 0.5, camelCase: null },
        sources: {
          model: 'thread',
          temperature: 'thread',
          system_prompt: 'thread',
          context_window: 'default',
        },
      })
      const patch = await api.call('PATCH', path, {
        model: null,
        context_window: 1,
        settings: { top_p: null, k: 1 },
      })
      expect(patch).toMatchObject({
        status: 200,
        body: {
          model: 'default-model',
          temperature: 0,
          context_window: 1,
          settings: { camelCase: null, k: 1 },
        },
      })
      expect(patch.body.settings).not.toHaveProperty('top_p')
      expect((await api.call('GET', path)).body).toEqual(patch.body)
      const emptied = await api.call('PUT', path)
      expect(emptied.body).toMatchObject({ model: 'default-model', temperature: 0.7, settings: {} })
      expect(emptied.body.sources).toMatchObject({ temperature: 'default', context_window: 'default' })
    })

    test.each([
      [{ temperature: 2.1 }, 'body.temperature must be <= 2'],
      [{ temperature: -0.1 }, 'body.temperature must be >= 0'],
      [{ temperature: '1' }, 'body.temperature must be number'],
      [{ context_window: 0 }, 'body.context_window must be >= 1'],
      [{ context_window: 1.5 }, 'body.context_window must be integer'],
      [{ context_window: 2 ** 31 }, 'body.context_window must be <= 2147483647'],
      [{ model: 'x'.repeat(256) }, 'body.model must not have more than 255 characters'],
      [{ model: 'a\0' }, 'body.model must not hold NUL or half of a surrogate pair'],
      [{ settings: [] }, 'body.settings must be object'],
      [{ systemPrompt: 'x' }, 'body has a field that is not known: systemPrompt'],
      [{ sources: {} }, 'body has a field that is not known: sources'],
    ])('%j is refused by PUT and PATCH', async (body, message) => {
      const path = `/api/threads/${await api.newThread()}/config`
      for (const method of ['PUT', 'PATCH'])
        expect(refusal(await api.call(method, path, body))).toEqual({
          status: 400,
          code: 'invalid_input',
          message,
        })
      expect((await api.call('GET', path)).body.sources.model).toBe('default')
    })

    test('settings keep NUL, long numbers and odd keys', async () => {
      const path = `/api/threads/${await api.newThread()}/config`
      const settings = '{"":1,"a\\u0000":"\\u0000\\ud800","n":9007199254740993,"__proto__":{"x":1}}'
      const put = await api.call('PUT', path, `{"settings":${settings}}`)
      const read = await api.call('GET', path)
      for (const { text } of [put, read])
        for (const part of [
          '"":1',
          '"a\\u0000":"\\u0000\\ud800"',
          '"n":9007199254740993',
          '"__proto__":{"x":1}',
        ])
          expect(text).toContain(part)
      const patched = await api.call('PATCH', path, '{"settings":{"__proto__":null,"a\\u0000":null}}')
      expect(patched.text).toContain('"settings":{"":1,"n":9007199254740993}')
    })
  },
  { defaults },
)
