/** Moves one folder into a database that is empty, and says how long it took and how much memory. */
import { setTimeout } from 'node:timers/promises'
import { openThreadbase } from '../src/index.ts'

const [databaseUrl = '', databaseSchema = '', dir = ''] = process.argv.slice(2)
const tb = await openThreadbase({ databaseUrl, databaseSchema, env: {}, embeddings: false })
await setTimeout(200)
const idle = process.memoryUsage.rss()
let peak = idle
const sampler = setInterval(() => {
  peak = Math.max(peak, process.memoryUsage.rss())
}, 10)
const started = performance.now()
const { messages, bytes, conversations } = await tb.conversationMove.migrate(dir)
const seconds = (performance.now() - started) / 1_000
clearInterval(sampler)
await tb.close()
console.log(JSON.stringify({ seconds, messages, bytes, conversations, memory: peak - idle }))
