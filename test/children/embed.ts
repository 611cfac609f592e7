// Embeds what waits, after it has appended so many messages itself, and says what it asks for and what it was given,
// until its input ends or it is killed.
import { silentLog } from '../../src/core/log.ts'
import { upgrade } from '../../src/db/migrate.ts'
import { loadMigrations } from '../../src/db/migrations.ts'
import { openPglite } from '../../src/db/pglite.ts'
import { openPostgres } from '../../src/db/postgres.ts'
import type { Embedder } from '../../src/embeddings/embedder.ts'
import { createMessageService } from '../../src/messages/service.ts'
import { createEmbeddingService } from '../../src/search/embed/service.ts'
import { createVectors, prepareVectors } from '../../src/search/vectors/service.ts'
import { createThreadService } from '../../src/threads/service.ts'
import { newTestEmbedder } from '../embedders.ts'

const {
  url,
  schema,
  dataDir,
  templateFile,
  append = 0,
  delayMs,
  leaseS,
} = JSON.parse(process.argv[2] ?? '{}')
const say = (facts: object) => console.log(JSON.stringify(facts))
const log = silentLog
const database =
  url === undefined
    ? await openPglite({ dataDir, templateFile, log })
    : await openPostgres({ url, schema, log })
await upgrade(database, await loadMigrations())
await prepareVectors(database, { index: 'hnsw', change: true }, log)
const model = newTestEmbedder()
model.faults = { delayMs }
const embedder: Embedder = {
  ...model,
  async embed(texts, options) {
    say({ asked: texts })
    const vectors = await model.embed(texts, options)
    say({ given: texts })
    return vectors
  },
}
const embeddings = createEmbeddingService(
  { database, vectors: createVectors(database, { probes: undefined }), embedder, log },
  { leaseS, pollS: 0.1, settleS: 0 },
)
const scope = { userId: 'local' }
if (append > 0) {
  const messages = createMessageService(database, { lanes: database.parallelism })
  const { id } = await createThreadService(database).create(scope)
  const texts = Array.from({ length: append }, (_, i) => ({ role: 'user' as const, content: `text ${i}` }))
  await messages.append(scope, id, texts)
  say({ appended: append })
}
embeddings.start()
say({ ready: process.pid })
// nothing waits: it says so once a moment
const timer = setInterval(async () => {
  const { waiting, done } = await embeddings.status()
  say({ waiting, done })
}, 200)
process.stdin.resume()
await new Promise((ended) => process.stdin.on('end', ended))
clearInterval(timer)
await embeddings.close()
await database.close()
