// Stores artifacts, deletes some and collects, all at the same time, saying which are acknowledged, until it is killed.
import { randomBytes } from 'node:crypto'
import { openThreadbase } from '../../src/index.ts'

const { env, threadId } = JSON.parse(process.argv[2] ?? '{}')
const tb = await openThreadbase({ env })
const scope = { userId: 'local' }
await tb.threads.create(scope, { id: threadId })
const say = (line: object) => console.log(JSON.stringify(line))
say({ open: true })

const contents = Array.from({ length: 20 }, () => randomBytes(50_000))
const store = async () => {
  for (let n = 0; ; n++) {
    // some again and again, some once, some in several chunks
    const bytes =
      n % 3 === 0 ? (contents[n % contents.length] as Buffer) : randomBytes(n % 2 ? 3_000_000 : 10)
    const { id } = await tb.artifacts.create(scope, threadId, bytes)
    say({ stored: id })
    if (n % 4 === 0) {
      await tb.artifacts.delete(scope, id)
      say({ deleted: id })
    }
  }
}
const collect = async () => {
  for (;;) {
    const { removed } = await tb.upkeep.collect({ graceS: 2 })
    if (removed > 0) say({ collected: removed })
  }
}
await Promise.all([store(), store(), store(), collect()])
