import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import { ThreadbaseSaver } from './service.ts'

// the suite is written for a runner that puts these into the global scope
Object.assign(globalThis, { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it })
const { deltaChannelHistoryTests, validate } = await import('@langchain/langgraph-checkpoint-validation')

for (const engine of engines) {
  describe.skipIf(!engine.available)(`LangGraph's own checks on ${engine.name}`, () => {
    let opened: TestDatabase
    let users = 0
    const initializer = {
      checkpointerName: 'threadbase',
      beforeAllTimeout: 60_000,
      beforeAll: async () => {
        opened = await engine.open()
      },
      afterAll: () => opened?.close(),
      createCheckpointer: () => new ThreadbaseSaver(opened.database, { userId: `user-${++users}` }),
    }
    // some of them run in the order of the file and share a thread
    validate(initializer as never)
    deltaChannelHistoryTests(initializer as never)
  })
}
