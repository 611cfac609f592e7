import type { PendingWrite } from '@langchain/langgraph-checkpoint'
import type { Contestants } from './checkpoint-savers.ts'
import { type BenchThread, createThread, message, messages, words } from './checkpoint-state.ts'
import type { Bench } from './checkpoints.ts'
import { alternate, median, ms, perSecond, type Row, timed, warmUp } from './harness.ts'

const PUTS = 100
const SERIES = 4
const WARM_UP_S = 3
const GROWTH_STEPS = 1_000
const GROWTH_REPEATS = 4
const GROWTH_BYTES_TARGET = 50
const GROWTH_SLOWER = 1.3

let threads = 0

/** Calls per second, one after another. What they are about is made before the clock starts. */
async function rateOf<T>(
  calls: number,
  make: () => T,
  call: (given: T) => Promise<unknown>,
): Promise<number> {
  const all = Array.from({ length: calls }, make)
  const { ms: spent } = await timed(async () => {
    for (const given of all) await call(given)
  })
  return (1_000 * calls) / spent
}

/** The rate of several series together, each with what it needs of its own. */
async function rateOfSeries(series: () => Promise<number>): Promise<number> {
  let seconds = 0
  for (let i = 0; i < SERIES; i++) seconds += 1 / (await series())
  return SERIES / seconds
}

type Rates = Record<'raw' | 'peer' | 'ours', number>

function rateRow(work: string, rates: Rates, target: number): Row {
  const ratio = rates.ours / rates.peer
  return {
    work,
    figure: perSecond(rates.ours),
    limit: `peer ${perSecond(rates.peer)}`,
    ratio,
    target: `≥ ${target}`,
    met: ratio >= target,
    raw: `insert ${perSecond(rates.raw)}`,
    rawRatio: rates.ours / rates.raw,
  }
}

export async function putRows({ open, raw, rounds, how }: Bench): Promise<Row[]> {
  const savers = await open('put')
  const small = async (which: keyof Contestants) => {
    const thread = createThread(savers[which].saver, `small-${++threads}`)
    const make = () => ({ plan: words(1_000), notes: words(1_000), draft: words(1_000), answer: message() })
    return rateOf(PUTS, make, (values) => thread.put(values))
  }
  const growing = async (which: keyof Contestants) => {
    const thread = createThread(savers[which].saver, `growing-${++threads}`)
    // 100 KB on average
    await thread.put({ messages: messages(100 - PUTS / 2), user: 'u1', turns: 0 })
    return rateOf(PUTS, message, (added) =>
      thread.put({ messages: [...(thread.values.messages as unknown[]), added] }),
    )
  }
  const compare = async (work: (which: keyof Contestants) => Promise<number>, bytes: number) => {
    await warmUp(
      WARM_UP_S,
      () => work('peer'),
      () => work('ours'),
    )
    return alternate(rounds, {
      raw: () =>
        rateOf(
          PUTS,
          () => Buffer.from(words(bytes)),
          (data) => raw.insert(data),
        ),
      peer: () => rateOfSeries(() => work('peer')),
      ours: () => rateOfSeries(() => work('ours')),
    })
  }
  return [
    rateRow(`put, 4 channels of 1 KB change${how}`, await compare(small, 4_000), 3),
    rateRow(`put, 100 KB of messages, 1 KB new${how}`, await compare(growing, 1_000), 5),
  ]
}

export async function putWritesRows({ open, raw, rounds, how }: Bench): Promise<Row[]> {
  const savers = await open('writes')
  const prepared: Partial<Record<keyof Contestants, BenchThread>> = {}
  for (const which of ['peer', 'ours'] as const) {
    const thread = createThread(savers[which].saver, 'writes')
    await thread.put({ messages: messages(1) })
    prepared[which] = thread
  }
  let tasks = 0
  const make = (): PendingWrite[] => [
    ['messages', [message()]],
    ['notes', words(1_000)],
    ['draft', words(1_000)],
  ]
  const work = (which: keyof Contestants) => {
    const { config } = prepared[which] as BenchThread
    return rateOf(PUTS, make, (writes) => {
      const task = `00000000-0000-4000-8000-${String(++tasks).padStart(12, '0')}`
      return savers[which].saver.putWrites(config, writes, task)
    })
  }
  await warmUp(
    WARM_UP_S,
    () => work('peer'),
    () => work('ours'),
  )
  const rates = await alternate(rounds, {
    raw: () =>
      rateOf(
        PUTS,
        () => Buffer.from(words(3_000)),
        (data) => raw.insert(data),
      ),
    peer: () => rateOfSeries(() => work('peer')),
    ours: () => rateOfSeries(() => work('ours')),
  })
  return [rateRow(`putWrites of 3, 1 KB each${how}`, rates, 2)]
}

type Growth = { early: number; late: number; bytes: number }

/** The peer needs most of a minute: it takes part in one round. Each round has tables of its own. */
export async function growthRows({ open, rounds }: Bench): Promise<Row[]> {
  const measured: Record<keyof Contestants, Growth[]> = { peer: [], ours: [] }
  await growOnce(await open('growth'), 'ours', GROWTH_STEPS / 10)
  const contestant = (which: keyof Contestants) => async () => {
    const growth = await growOnce(await open(`growth_${which}${measured[which].length}`), which, GROWTH_STEPS)
    measured[which].push(growth)
    return growth.late / growth.early
  }
  const ratios = await alternate(rounds, { peer: contestant('peer'), ours: contestant('ours') }, { peer: 1 })
  const of = (which: keyof Contestants, what: keyof Growth) => median(measured[which].map((one) => one[what]))
  const mb = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`
  const smaller = of('peer', 'bytes') / of('ours', 'bytes')
  return [
    {
      work: '1,000 steps growing by 1 KB: the tables',
      figure: mb(of('ours', 'bytes')),
      limit: `peer ${mb(of('peer', 'bytes'))} (1 round)`,
      ratio: smaller,
      target: `≥ ${GROWTH_BYTES_TARGET}`,
      met: smaller >= GROWTH_BYTES_TARGET,
    },
    {
      work: 'put at step 1,000 against step 10',
      figure: `${ms(of('ours', 'late'))} : ${ms(of('ours', 'early'))} = ${ratios.ours.toFixed(2)}`,
      limit: `peer ${ms(of('peer', 'late'))} : ${ms(of('peer', 'early'))} = ${ratios.peer.toFixed(2)} (1 round)`,
      ratio: ratios.peer / ratios.ours,
      target: `≤ ${GROWTH_SLOWER} itself`,
      met: ratios.ours <= GROWTH_SLOWER,
    },
  ]
}

/** Steps of one thread, then puts at the end of it and at the beginning of others in turn: what slows one slows both. */
async function growOnce(savers: Contestants, which: keyof Contestants, steps: number): Promise<Growth> {
  const { saver, bytes } = savers[which]
  const thread = createThread(saver, `growth-${++threads}`)
  for (let step = 0; step < steps; step++) await grow(thread)
  const size = await bytes()
  const times: Record<'early' | 'late', number[]> = { early: [], late: [] }
  for (let repeat = 0; repeat < GROWTH_REPEATS; repeat++) {
    const young = createThread(saver, `young-${++threads}`)
    for (let step = 0; step < 5; step++) await grow(young)
    for (let step = 5; step < 15; step++) {
      times.early.push((await timed(() => grow(young))).ms)
      times.late.push((await timed(() => grow(thread))).ms)
    }
  }
  return { early: median(times.early), late: median(times.late), bytes: size }
}

const grow = (thread: BenchThread) =>
  thread.put({ messages: [...((thread.values.messages as unknown[]) ?? []), message()] })
