// Opens the embedded store and appends message after message, saying which are acknowledged, until it is killed.
import { silentLog } from '../../src/core/log.ts'
import { upgrade } from '../../src/db/migrate.ts'
import { loadMigrations } from '../../src/db/migrations.ts'
import { openPglite } from '../../src/db/pglite.ts'
import { prepareRls } from '../../src/db/rls.ts'
import { createMessageService } from '../../src/messages/service.ts'
import { createThreadService } from '../../src/threads/service.ts'

const { dataDir, templateFile, threadId, run, rls } = JSON.parse(process.argv[2] ?? '{}')
const database = await openPglite({ dataDir, templateFile, log: silentLog, rls })
await upgrade(database, await loadMigrations())
await prepareRls(database, { grant: true })
const tb = {
  threads: createThreadService(database),
  messages: createMessageService(database, { lanes: database.parallelism }),
}
const scope = { userId: 'local' }
await tb.threads.create(scope, { id: threadId })
console.log(JSON.stringify('open'))
const one = async (n: number) => {
  const messageId = `${run}-${n}`
  const [message] = await tb.messages.append(scope, threadId, [
    { messageId, role: 'user', content: `text ${messageId}` },
  ])
  console.log(JSON.stringify({ messageId, seq: message?.seq }))
}
for (let n = 0; ; n += 4) await Promise.all([one(n), one(n + 1), one(n + 2), one(n + 3)])
