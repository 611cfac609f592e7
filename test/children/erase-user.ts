// Erases a user, saying how far it is, until it is done or killed.
import { openThreadbase } from '../../src/index.ts'

const { env, userId } = JSON.parse(process.argv[2] ?? '{}')
const tb = await openThreadbase({ env })
const say = (line: object) => console.log(JSON.stringify(line))
say({ open: true })
const report = await tb.gdpr.erase(
  { userId },
  { userId: 'root', via: 'library' },
  { onProgress: ({ rows, table }) => say({ rows, table }) },
)
say({ done: report.rows })
await tb.close()
