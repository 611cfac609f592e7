import { setTimeout as delay } from 'node:timers/promises'
import { sql } from 'kysely'
import { t } from '../src/db/schema.ts'
import type { Threadbase } from '../src/threadbase.ts'
import { residentMb } from './artifact-gigabyte.ts'
import { ms, perSecond, type Row, timed } from './harness.ts'

const ACTOR = { userId: 'bench', via: 'library' } as const
const MESSAGES = 100_000
const THREADS = 200
const OTHERS = 4
const ALONE_MS = 3_000
const ERASE_TARGET_MS = 5_000
/** Above what the process had: far less than what it exports. */
const MEMORY_TARGET_MB = 200

/** Hand-over and erasure of a user with 100,000 messages; the erasure while other users append. */
export async function gdprRows(tb: Threadbase): Promise<Row[]> {
  const scope = { userId: 'leaving' }
  process.stderr.write(`  storing ${MESSAGES.toLocaleString('en')} messages\n`)
  await fill(tb, scope)
  return [...(await exportRows(tb, scope)), ...(await eraseRows(tb, scope))]
}

/** As chats are: answers of some hundred characters. */
async function fill(tb: Threadbase, scope: { userId: string }): Promise<void> {
  const each = MESSAGES / THREADS
  for (let n = 0; n < THREADS; n++) {
    const { id } = await tb.threads.create(scope, { title: `thread ${n}` })
    const messages = Array.from({ length: each }, (_, i) => ({
      role: i % 2 === 0 ? ('user' as const) : ('assistant' as const),
      content: `message ${i} of thread ${n}: ${'what was said about hotels, trains and dinner '.repeat(i % 12)}`,
      messageId: `m${i}`,
    }))
    await tb.messages.append(scope, id, messages)
  }
  await sql`analyze ${t.messages}`.execute(tb.database.db)
}

async function exportRows(tb: Threadbase, scope: { userId: string }): Promise<Row[]> {
  globalThis.gc?.()
  const idle = residentMb(process.pid, 'VmRSS')
  let peak = idle
  const timer = setInterval(() => {
    peak = Math.max(peak, residentMb(process.pid, 'VmRSS'))
  }, 10)
  let bytes = 0
  const { ms: took, result } = await timed(async () => {
    const { stream, report } = await tb.gdpr.export(scope, ACTOR)
    for await (const chunk of stream) bytes += (chunk as Buffer).length
    return report
  })
  clearInterval(timer)
  const plain = result.files.reduce((sum, file) => sum + file.bytes, 0)
  const above = peak - idle
  return [
    {
      work: `export of a user with ${MESSAGES.toLocaleString('en')} messages`,
      figure: `${ms(took)}, ${perSecond(MESSAGES / (took / 1_000))} messages`,
      limit: `${(plain / 1e6).toFixed(0)} MB as a zip of ${(bytes / 1e6).toFixed(0)} MB`,
    },
    {
      work: 'its memory above idle',
      figure: `${above.toFixed(0)} MB`,
      target: `< ${MEMORY_TARGET_MB} MB`,
      met: above < MEMORY_TARGET_MB,
    },
  ]
}

async function eraseRows(tb: Threadbase, scope: { userId: string }): Promise<Row[]> {
  const threads = await Promise.all(
    Array.from({ length: OTHERS }, async (_, n) => {
      const other = { userId: `staying-${n}` }
      return { other, id: (await tb.threads.create(other)).id }
    }),
  )
  const appendWhile = async (work: () => Promise<unknown>): Promise<number[]> => {
    const times: number[] = []
    let running = true
    const writers = threads.map(async ({ other, id }) => {
      while (running) {
        const { ms: took } = await timed(() =>
          tb.messages.append(other, id, [{ role: 'user', content: 'a question of some length' }]),
        )
        times.push(took)
        // as people do, not as fast as they can
        await delay(2)
      }
    })
    await work()
    running = false
    await Promise.all(writers)
    return times
  }
  const alone = await appendWhile(() => delay(ALONE_MS))
  let took = 0
  const meanwhile = await appendWhile(async () => {
    took = (await timed(() => tb.gdpr.erase(scope, ACTOR))).ms
  })
  return [
    {
      work: `erase of a user with ${MESSAGES.toLocaleString('en')} messages, while ${OTHERS} others append`,
      figure: ms(took),
      target: `< ${ERASE_TARGET_MS / 1_000} s`,
      met: took < ERASE_TARGET_MS,
    },
    {
      work: 'appends of the others meanwhile, p95 (slowest)',
      figure: `${ms(quantile(meanwhile, 0.95))} (${ms(Math.max(...meanwhile))})`,
      limit: `without ${ms(quantile(alone, 0.95))} (${ms(Math.max(...alone))})`,
      ratio: quantile(meanwhile, 0.95) / quantile(alone, 0.95),
    },
  ]
}

function quantile(values: number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN
}
