import { lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { openJsonConversations } from '../src/conversations/json/store.ts'
import type { ConversationStore } from '../src/conversations/store.ts'
import { silentLog } from '../src/core/log.ts'
import { alternate, median, ms, type Row, timed } from './harness.ts'

const MANY = 10_000
const FEW = 10
const LISTS = 100
const MESSAGES = 1_000
const APPENDS = 5
const scope = { userId: 'local' }

/** The list of a large folder, and appends to a long conversation in a small and in a large one. */
export async function jsonConversationRows(rounds = 5): Promise<Row[]> {
  const dir = mkdtempSync(join(tmpdir(), 'threadbase-bench-json-'))
  try {
    const large = await openFolder(join(dir, 'large'), MANY)
    const small = await openFolder(join(dir, 'small'), FEW)
    return [...(await listRows(large)), await appendRow(large.store, small.store, rounds)]
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

type Folder = { path: string; store: ConversationStore }

async function openFolder(dir: string, count: number): Promise<Folder> {
  const path = join(dir, 'conversations')
  mkdirSync(path, { recursive: true })
  for (let i = 0; i < count; i++) writeFileSync(join(path, `${i}.json`), conversationText(String(i), 4))
  writeFileSync(join(path, 'long.json'), conversationText('long', MESSAGES))
  return { path, store: await openJsonConversations({ dir, log: silentLog }) }
}

/** Questions and answers in turn, as a council in Python writes them. */
function conversationText(id: string, count: number): string {
  const text = 'Models answer at some length, in sentences like this one. '.repeat(8)
  const stage1 = ['a', 'b', 'c'].map((model) => ({ model, response: text }))
  const stage2 = stage1.map(({ model }) => ({ model, ranking: text, parsed_ranking: ['Response A'] }))
  const answer = { role: 'assistant', stage1, stage2, stage3: { model: 'a', response: text } }
  const messages = Array.from({ length: count }, (_, i) => (i % 2 ? answer : { role: 'user', content: text }))
  const second = String(Number.parseInt(id, 10) % 60 || 0).padStart(2, '0')
  return JSON.stringify({ id, created_at: `2026-01-01T00:00:${second}.123456`, title: id, messages }, null, 2)
}

async function listRows({ path, store }: Folder): Promise<Row[]> {
  const list = async () => (await timed(() => store.listConversations(scope))).ms
  const first = await list()
  // what was written in the last two seconds is read again
  await delay(2_100)
  await list()
  const plain: number[] = []
  const warm: number[] = []
  const looks: number[] = []
  for (let i = 0; i < LISTS; i++) {
    if (i % (LISTS / 2) === 0) plain.push((await timed(() => listPlain(path))).ms)
    warm.push(await list())
    looks.push((await timed(async () => lookAtAll(path))).ms)
  }
  const sorted = warm.toSorted((a, b) => a - b)
  const p50 = median(warm)
  const p95 = sorted[Math.floor(0.95 * sorted.length)] ?? Number.NaN
  const limit = `every file read and parsed ${ms(median(plain))}`
  return [
    {
      work: `list of ${MANY.toLocaleString('en')} conversations in files, warm, p50`,
      figure: ms(p50),
      limit,
      ratio: p50 / median(plain),
      target: '≤ 50 ms',
      met: p50 <= 50,
      raw: `lstat of every file ${ms(median(looks))}`,
      rawRatio: p50 / median(looks),
    },
    { work: 'the same, p95', figure: ms(p95) },
    { work: 'the same, of a process that has just started', figure: ms(first), limit },
  ]
}

/** What it takes to learn that no file changed. */
function lookAtAll(path: string): void {
  for (const name of readdirSync(path)) lstatSync(`${path}/${name}`)
}

/** What councils without an index do. */
async function listPlain(path: string): Promise<unknown[]> {
  const all = readdirSync(path)
    .filter((name) => name.endsWith('.json'))
    .map((name) => JSON.parse(readFileSync(join(path, name), 'utf8')))
    .map(({ id, created_at, title, messages }) => ({ id, created_at, title, message_count: messages.length }))
  return all.sort((a, b) => (a.created_at < b.created_at ? 1 : -1))
}

async function appendRow(large: ConversationStore, small: ConversationStore, rounds: number): Promise<Row> {
  const append = (store: ConversationStore) => async () => {
    const times: number[] = []
    for (let i = 0; i < APPENDS; i++)
      times.push((await timed(() => store.addUserMessage(scope, 'long', 'One more question'))).ms)
    return median(times)
  }
  await append(large)()
  await append(small)()
  const medians = await alternate(rounds, { small: append(small), large: append(large) })
  const ratio = medians.large / medians.small
  return {
    work: `append to a conversation of ${MESSAGES.toLocaleString('en')} messages, in a folder of ${MANY.toLocaleString('en')}`,
    figure: ms(medians.large),
    limit: `in a folder of ${FEW} ${ms(medians.small)}`,
    ratio,
    target: '≤ 1.2',
    met: ratio <= 1.2,
  }
}
