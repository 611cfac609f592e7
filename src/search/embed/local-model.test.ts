import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { engines } from '../../../test/harness.ts'
import { silentLog } from '../../core/log.ts'
import { t } from '../../db/schema.ts'
import { LOCAL_MODEL, openLocal } from '../../embeddings/local.ts'

// the model is the same whatever keeps its vectors
const [engine] = engines.toReversed().filter(({ available }) => available)

test('the local model, all the way: what is near in meaning is near in the database', async () => {
  const embedder = openLocal({ log: silentLog })
  const opened = await engine?.open({ embedder })
  if (opened === undefined) throw new Error('there is no store')
  try {
    const scope = { userId: 'anna' }
    const { id } = await opened.tb.threads.create(scope)
    const texts = ['The cat sleeps on the sofa.', 'Book a flight to Berlin.', 'How do I bake bread?']
    const appended = await opened.tb.messages.append(
      scope,
      id,
      texts.map((content) => ({ role: 'user', content })),
    )
    const ids = appended.map((message) => message.id)
    expect(await opened.tb.embeddings.wait(scope, ids, { timeoutS: 60 })).toBe('embedded')
    const [query] = await embedder.embed(['I want to travel by plane'])
    const { rows } = await sql<{ text: string; model: string }>`
      select content #>> '{}' as text, embedding_model as model from ${t.messages} where user_id = ${scope.userId}
       order by embedding <=> ${JSON.stringify([...(query ?? [])])}::vector`.execute(opened.database.db)
    expect(rows[0]).toEqual({ text: texts[1], model: LOCAL_MODEL })
  } finally {
    await opened.close()
  }
})
