import type { Contestants } from './checkpoint-savers.ts'
import { createThread, message, messages, words } from './checkpoint-state.ts'
import type { Bench } from './checkpoints.ts'
import { alternate, ms, perSecond, type Row, timed, warmUp } from './harness.ts'

const KB = 1_000
const HISTORY = 1_000
const READS = 10
const WARM_UP_S = 3
const BOTH = ['peer', 'ours'] as const
type Which = keyof Contestants

export async function getRows({ open, raw, rounds }: Bench): Promise<Row[]> {
  const savers = await open('get')
  const read = async (which: Which, thread: string, count: number) => {
    const { saver } = savers[which]
    const { ms: spent } = await timed(async () => {
      for (let i = 0; i < READS; i++) {
        const tuple = await saver.getTuple({ configurable: { thread_id: thread, checkpoint_ns: '' } })
        const list = tuple?.checkpoint.channel_values.messages as unknown[] | undefined
        if (list?.length !== count) throw new Error(`${which} read ${list?.length} messages of ${count}`)
      }
    })
    return (1_000 * READS) / spent
  }
  const rows: Row[] = []
  for (const [size, count, target] of [
    ['100 KB', 100, 15],
    ['1 MB', 1_000, 20],
  ] as const) {
    const state = messages(count)
    for (const which of BOTH)
      await createThread(savers[which].saver, size).put({ messages: state, user: 'u1' })
    const row = await raw.insert(Buffer.from(words(count * KB)))
    await warmUp(WARM_UP_S, ...BOTH.map((which) => () => read(which, size, count)))
    const rates = await alternate(rounds, {
      raw: async () => (1_000 * READS) / (await timedTimes(READS, () => raw.select(row, 1))),
      peer: () => read('peer', size, count),
      ours: () => read('ours', size, count),
    })
    const ratio = rates.ours / rates.peer
    rows.push({
      work: `getTuple of the newest, ${size} of messages`,
      figure: perSecond(rates.ours),
      limit: `peer ${rates.peer.toFixed(1)}/s`,
      ratio,
      target: `≥ ${target}`,
      met: ratio >= target,
      raw: `select ${perSecond(rates.raw)}`,
      rawRatio: rates.ours / rates.raw,
    })
  }
  return rows
}

async function timedTimes(times: number, work: () => Promise<unknown>): Promise<number> {
  const { ms: spent } = await timed(async () => {
    for (let i = 0; i < times; i++) await work()
  })
  return spent
}

/** One thread of 1,000 checkpoints of 100 KB, each with one message more at the end and one fewer in front than the one before. */
export async function listAndDeleteRows(bench: Bench): Promise<Row[]> {
  const savers = await bench.open('list')
  const start = messages(100)
  const later = messages(HISTORY)
  for (const which of BOTH) {
    const thread = createThread(savers[which].saver, 'history')
    let state = start
    for (let step = 0; step < HISTORY; step++) {
      await thread.put({ messages: state, user: 'u1' })
      state = [...state.slice(1), later[step] ?? message()]
    }
    process.stderr.write(`  ${which} has ${HISTORY} checkpoints of 100 KB\n`)
  }
  const first = await bench.raw.insert(Buffer.from(words(100 * KB)))
  for (let i = 1; i < HISTORY; i++) await bench.raw.insert(Buffer.from(words(100 * KB)))
  return [
    await listRow(bench, savers, first, 10, 15),
    await listRow(bench, savers, first, HISTORY, 10),
    ...(await deleteRows(bench, savers)),
  ]
}

async function listRow(
  { raw, rounds }: Bench,
  savers: Contestants,
  first: number,
  limit: number,
  target: number,
): Promise<Row> {
  const list = async (which: Which) => {
    const options = limit === HISTORY ? {} : { limit }
    const { ms: spent } = await timed(async () => {
      let seen = 0
      const all = savers[which].saver.list(
        { configurable: { thread_id: 'history', checkpoint_ns: '' } },
        options,
      )
      for await (const { checkpoint } of all)
        seen += (checkpoint.channel_values.messages as unknown[]).length / 100
      if (seen !== limit) throw new Error(`${which} listed ${seen} of ${limit}`)
    })
    return spent
  }
  const all = limit === HISTORY
  const spent = await alternate(
    rounds,
    {
      raw: async () => (await timed(() => raw.select(first + HISTORY - limit, limit))).ms,
      peer: () => list('peer'),
      ours: () => list('ours'),
    },
    all ? { peer: 1, raw: Math.min(rounds, 3), ours: Math.min(rounds, 3) } : {},
  )
  const ratio = spent.peer / spent.ours
  return {
    work: all ? 'list all 1,000 of 100 KB' : 'list the newest 10 of 1,000 of 100 KB',
    figure: ms(spent.ours),
    limit: `peer ${ms(spent.peer)}${all ? ' (1 round)' : ''}`,
    ratio,
    target: `≥ ${target}`,
    met: ratio >= target,
    raw: `select ${ms(spent.raw)}`,
    rawRatio: spent.raw / spent.ours,
  }
}

/** Of copies that the database makes. */
async function deleteRows({ rounds, open }: Bench, history: Contestants): Promise<Row[]> {
  const small = await open('delete')
  for (const which of BOTH) {
    const thread = createThread(small[which].saver, 'history')
    for (let step = 0; step < HISTORY; step++) await thread.put({ answer: message(), turns: step })
  }
  let copies = 0
  const remove = async (savers: Contestants, which: Which) => {
    const copy = `copy-${++copies}`
    await savers[which].copyThread('history', copy)
    return (await timed(() => savers[which].deleteThread(copy))).ms
  }
  const rows: Row[] = []
  for (const [what, savers] of [
    ['1 KB', small],
    ['100 KB', history],
  ] as const) {
    for (const which of BOTH) await remove(savers, which)
    const spent = await alternate(rounds, {
      peer: () => remove(savers, 'peer'),
      ours: () => remove(savers, 'ours'),
    })
    rows.push({
      work: `deleteThread of 1,000 checkpoints of ${what}`,
      figure: ms(spent.ours),
      limit: `peer ${ms(spent.peer)}`,
      ratio: spent.peer / spent.ours,
      target: '≥ 1',
      met: spent.ours <= spent.peer,
    })
  }
  return rows
}
