import { describe, expect, test } from 'vitest'
import { newTestEmbedder } from '../test/embedders.ts'
import { makeTempDir, recordingLog } from '../test/harness.ts'
import { startOpenAiServer } from '../test/openai-server.ts'
import { parseConfig } from './config.ts'
import { silentLog } from './core/log.ts'
import { openEmbeddings } from './open-embeddings.ts'
import { openThreadbase } from './open-threadbase.ts'

const settingsOf = (env: Record<string, string>) => parseConfig(env).embeddings
const open = (env: Record<string, string>) => openEmbeddings(parseConfig(env), silentLog)

describe('the model of a configuration', () => {
  test('the local one, unless there is to be none', async () => {
    expect(settingsOf({})).toEqual({ kind: 'local', engine: 'auto', isDefault: true })
    expect(settingsOf({ EMBEDDING_MODEL: 'local', EMBEDDING_ENGINE: 'wasm' })).toEqual({
      kind: 'local',
      engine: 'wasm',
      isDefault: false,
    })
    const local = open({})
    expect(local).toMatchObject({ model: 'minilm-l6-v2' })
    await local?.close()
    expect(open({ EMBEDDING_MODEL: 'none' })).toBeUndefined()
  })

  test('one at an endpoint, with the key that is for it', async () => {
    const server = await startOpenAiServer()
    const embedder = open({ EMBEDDING_MODEL: 'm', EMBEDDING_URL: server.url, EMBEDDING_API_KEY: 'k' })
    await embedder?.embed(['x'])
    expect(server.embeddings.requests).toMatchObject([{ model: 'm' }])
    expect(server.embeddings.credentials).toEqual(['Bearer k'])
    await embedder?.close()
    await server.close()
  })

  test("OpenAI's key goes nowhere but where OpenAI's keys go", () => {
    const env = { EMBEDDING_MODEL: 'm', OPENAI_API_KEY: 'openai' }
    const shared = { kind: 'endpoint', model: 'm', key: 'openai', timeoutMs: 30_000 }
    expect(settingsOf(env)).toEqual({ ...shared, url: 'https://api.openai.com/v1' })
    const own = 'http://localhost:8000/v1'
    expect(settingsOf({ ...env, OPENAI_BASE_URL: own })).toEqual({ ...shared, url: own })
    expect(settingsOf({ ...env, EMBEDDING_URL: own })).toMatchObject({ url: own, key: undefined })
    expect(settingsOf({ ...env, EMBEDDING_URL: own, EMBEDDING_API_KEY: 'k' })).toMatchObject({ key: 'k' })
  })

  test.each([
    ['EMBEDDING_ENGINE', 'gpu'],
    ['EMBEDDING_URL', 'ftp://secret'],
    ['EMBEDDING_URL', 'https://user:secret@host/v1'],
    ['EMBEDDING_TIMEOUT_S', '0'],
    ['EMBEDDING_MODEL', 'secret'.repeat(50)],
  ])('%s must not be %s', (name, value) => {
    expect(() => parseConfig({ [name]: value })).toThrow(name)
    expect(() => parseConfig({ [name]: value })).not.toThrow('secret')
  })
})

test('a model that nobody has chosen does not take the place of another', async () => {
  const dataDir = await makeTempDir()
  const scope = { userId: 'anna' }
  const first = await openThreadbase({ dataDir, env: {}, embeddings: newTestEmbedder('chosen') })
  const { id } = await first.threads.create(scope)
  const [message] = await first.messages.append(scope, id, [{ role: 'user', content: 'words' }])
  expect(await first.embeddings.wait(scope, [String(message?.id)])).toBe('embedded')
  await first.close()
  const { log, logged } = recordingLog()
  const unchosen = await openThreadbase({ dataDir, env: {}, log })
  expect(unchosen.embeddings.model).toBeUndefined()
  expect(logged.filter(({ level }) => level === 'warn')).toMatchObject([{ facts: { model: 'chosen' } }])
  await unchosen.close()
  const again = await openThreadbase({ dataDir, env: { EMBEDDING_MODEL: 'local' } })
  expect(again.embeddings.model).toBe('minilm-l6-v2')
  await again.close()
})
