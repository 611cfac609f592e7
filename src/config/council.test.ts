import { describe, expect, test } from 'vitest'
import { parseConfig } from '../config.ts'

const council = (env: Record<string, string>) => parseConfig(env).council

describe('the council', () => {
  test('has no key and its own models, unless something is said', () => {
    expect(council({ COUNCIL_MODELS: '' })).toEqual({
      keys: { openrouter: undefined, openai: undefined },
      urls: { openrouter: 'https://openrouter.ai/api/v1', openai: 'https://api.openai.com/v1' },
      models: undefined,
      chairman: undefined,
      titleModel: undefined,
      timeoutMs: 120_000,
      retries: 2,
    })
    const env = {
      OPENROUTER_API_KEY: 'sk-or',
      OPENAI_API_KEY: 'sk-oa',
      OPENAI_BASE_URL: 'http://localhost:8000/v1',
      COUNCIL_MODELS: ' a/b , c ',
      CHAIRMAN_MODEL: 'c',
      COUNCIL_MODEL_TIMEOUT_S: '1.5',
      COUNCIL_MODEL_RETRIES: '0',
    }
    expect(council(env)).toMatchObject({
      keys: { openrouter: 'sk-or', openai: 'sk-oa' },
      urls: { openai: 'http://localhost:8000/v1' },
      models: ['a/b', 'c'],
      chairman: 'c',
      timeoutMs: 1_500,
      retries: 0,
    })
  })

  test.each([
    ['OPENAI_BASE_URL', 'https://user:secret@host/v1'],
    ['OPENAI_BASE_URL', 'ftp://secret'],
    ['OPENROUTER_BASE_URL', 'https://host/v1?key=secret'],
    ['OPENAI_API_KEY', 'sk‑secret'],
    ['OPENROUTER_API_KEY', 'secret\u0007x'],
    ['COUNCIL_MODELS', ','],
    ['COUNCIL_MODELS', Array.from({ length: 27 }, (_, i) => `m${i}`).join()],
    ['CHAIRMAN_MODEL', 'x'.repeat(256)],
    ['COUNCIL_MODEL_TIMEOUT_S', '0'],
    ['COUNCIL_MODEL_TIMEOUT_S', '301'],
    ['COUNCIL_MODEL_RETRIES', '1.5'],
    ['COUNCIL_MODEL_RETRIES', '11'],
  ])('%s of %j is refused, and not repeated', (name, value) => {
    const refused = expect.objectContaining({ code: 'invalid_input', details: { variable: name } })
    expect(() => council({ [name]: value })).toThrow(refused)
    expect(() => council({ [name]: value })).not.toThrow(/secret/)
  })
})
