// Counts questions of one user in a directory's files, so many at once, until no more may be asked.
import { createJsonUsage } from '../../src/usage/json/service.ts'

const { dir, userId, times } = JSON.parse(process.argv[2] ?? '{}')
const usage = createJsonUsage({
  dir,
  settings: {
    tiers: new Map([['free', { daily: 10, monthly: 100 }]]),
    defaultTier: 'free',
    localTier: 'free',
  },
  audit: { record: async () => {} },
  messagesOf: async function* () {},
})
const codes = await Promise.all(
  Array.from({ length: times }, () =>
    usage.consume({ userId }).then(
      () => 'counted',
      (error: { code?: string }) => String(error.code),
    ),
  ),
)
console.log(JSON.stringify(codes))
