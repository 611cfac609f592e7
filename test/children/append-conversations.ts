// Appends messages to conversations in JSON files, and says each one that is stored.
import { openJsonConversations } from '../../src/conversations/json/store.ts'
import { silentLog } from '../../src/core/log.ts'

const { dir, name, ids, times, fill = '' } = JSON.parse(process.argv[2] ?? '{}')
const scope = { userId: 'local' }
const store = await openJsonConversations({ dir, log: silentLog })
const say = (facts: object) => console.log(JSON.stringify(facts))
say({ ready: process.pid })
// an empty list of ids: each message in a conversation of its own
for (let i = 0; i < times; i++) {
  const content = `${name} ${i}`
  const id: string = ids[i % ids.length] ?? (await store.createConversation(scope)).id
  await store.addUserMessage(scope, id, content + fill)
  say({ id, content })
}
await store.close()
