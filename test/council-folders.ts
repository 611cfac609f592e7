import { mkdir, utimes, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'

type Fields = Record<string, unknown>
type Random = () => number

/** A file of a folder, and what a move makes of it. */
export type MadeFile = {
  path: string
  userId: string
  /** Of a conversation. */
  id?: string
  status: 'moved' | 'skipped' | 'failed'
  messages: number
  /** Where the JSON of a broken file ends, as `line:column`. */
  at?: string
  reason?: string
}

export type CouncilFolderOptions = {
  /** The same seed, the same folder. */
  seed?: number
  /** How many conversations. */
  conversations?: number
  /** How many messages each. */
  messages?: number
  /** Characters of a text of a model. */
  chars?: number
  /** Texts, fields and numbers that writers of JSON forget. Default false: what councils write. */
  odd?: boolean
  /** One conversation with a message of so many bytes. */
  bigMessageBytes?: number
  /** Files that cannot be taken, and files of the same conversation. */
  broken?: boolean
  /** Default: `local` in conversations/, three users in each of the other layouts. */
  layouts?: ('flat' | 'nested' | 'user')[]
}

const START = Date.UTC(2024, 0, 1)
const MODELS = ['openai/gpt-4o', 'anthropic/claude-sonnet', 'google/gemini-pro']

/** Numbers from 0 to 1, always the same for a seed. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Makes the data directory of a council. @returns what is in it */
export async function makeCouncilFolder(
  dir: string,
  {
    seed = 1,
    conversations = 12,
    messages = 4,
    chars = 120,
    odd = false,
    bigMessageBytes,
    broken = false,
    layouts = ['flat', 'nested', 'user'],
  }: CouncilFolderOptions = {},
): Promise<MadeFile[]> {
  const random = seededRandom(seed)
  const made: MadeFile[] = []
  const put: Put = async (file, text, time = START + made.length * 60_000, at = file.path) => {
    const path = join(dir, at)
    await mkdir(dirname(path), { recursive: true })
    await writeFile(path, text)
    await utimes(path, new Date(time), new Date(time))
    made.push(file)
  }
  for (let n = 0; n < conversations; n++) {
    const id = odd && n % 5 === 4 ? `Gespräch ${n} 😀` : uuid(random)
    const layout = layouts[n % layouts.length] ?? 'flat'
    const userId =
      layout === 'flat' ? 'local' : `${layout === 'user' ? 'firebase' : 'clerk'}-${Math.floor(n / 3) % 3}`
    const document = makeConversation(random, { id, messages, chars, odd, n })
    if (bigMessageBytes !== undefined && n === 0)
      document.messages.push({ role: 'user', content: 'x'.repeat(bigMessageBytes) })
    // a flat file may say whose it is
    const named = layout === 'flat' && n % 6 === 3
    if (named) document.user_id = `named-${n % 4}`
    const path = pathOf(layout, userId, id)
    const owner = named ? String(document.user_id) : userId
    const file = { path, userId: owner, id, status: 'moved', messages: document.messages.length } as const
    await put(file, writeDocument(document), START + n * 3_600_000 + messages * 60_000)
  }
  const users = new Set(made.map(({ userId }) => userId))
  for (const [n, userId] of [...users].sort().entries())
    await put(
      { path: `usage/${userId}/usage.json`, userId, status: 'moved', messages: 0 },
      JSON.stringify(n % 2 === 0 ? usage(userId, n) : usageOfOldSpelling(userId, n), null, 2),
    )
  if (broken) await putBroken(put, random)
  return made
}

type Put = (file: MadeFile, text: string | Uint8Array, time?: number, at?: string) => Promise<void>

async function putBroken(put: Put, random: Random): Promise<void> {
  const good = writeDocument(makeConversation(random, { id: 'x', messages: 4, chars: 40, odd: false, n: 1 }))
  const cut = good.slice(0, 150)
  const nan = '{\n  "id": "nan",\n  "messages": [],\n  "score": NaN\n}'
  const files: [name: string, text: string | Uint8Array, reason: string, at?: string][] = [
    ['cut', cut, 'is cut off', `${cut.split('\n').length}:${cut.length - cut.lastIndexOf('\n')}`],
    ['nan', nan, 'NaN', '4:12'],
    ['infinity', '{"messages": [], "score": -Infinity}', 'Infinity', '1:28'],
    ['empty', '', 'is empty', '1:1'],
    ['list', '[]', 'no JSON object'],
    ['text', '"a"', 'no JSON object'],
    ['number', '12345678901234567890', 'no JSON object'],
    ['binary', Uint8Array.from([123, 10, 34, 0xff, 0xfe, 0]), 'not UTF-8', '2:2'],
    ['no-messages', '{"id": "no-messages"}', 'no array `messages`'],
    ['odd-message', '{"messages": [{"role": "user"}, 5]}', 'message 2 is no JSON object'],
    ['comma', '{"messages": [],}', 'is no JSON', '1:17'],
    ['deep', `{"messages": [{"content": ${'['.repeat(600)}${']'.repeat(600)}}]}`, 'nested deeper'],
  ]
  for (const [id, text, reason, at] of files) {
    const path = pathOf('nested', 'broken', id)
    await put({ path, userId: 'broken', id, status: 'failed', messages: 0, reason, at }, text)
  }
  const usage = { path: 'usage/broken/usage.json', userId: 'broken', messages: 0 }
  await put({ ...usage, status: 'failed', reason: 'daily_used' }, '{"daily_used": "many"}')
  // one conversation in two files: the same, and another one
  const same = writeDocument(
    makeConversation(random, { id: 'same', messages: 2, chars: 40, odd: true, n: 2 }),
  )
  const twin = { userId: 'twin', messages: 0 }
  await put({ ...twin, path: 'conversations/twin/same.json', id: 'same', status: 'moved', messages: 2 }, same)
  const packed = JSON.stringify(JSON.parse(same))
  await put(
    {
      ...twin,
      path: 'twin/same.json',
      id: 'same',
      status: 'skipped',
      reason: 'conversations/twin/same.json',
    },
    packed,
  )
  await put({ ...twin, path: 'conversations/twin/x.json', id: 'x', status: 'moved', messages: 4 }, good)
  const other = good.replace('"role": "user"', '"role": "User"')
  await put(
    { ...twin, path: 'twin/x.json', id: 'x', status: 'failed', reason: 'conversations/twin/x.json' },
    other,
  )
  // the same id of another user is another conversation
  await put({ path: 'triplet/x.json', userId: 'triplet', id: 'x', status: 'moved', messages: 4 }, good)
  const others = ['notes.txt', 'settings.json', 'conversations/readme.md', 'usage/twin/old.json']
  for (const path of others) await put({ path, userId: '', status: 'skipped', messages: 0 }, 'x')
  await put(
    { path: 'twin/deeper/', userId: '', status: 'skipped', messages: 0 },
    'x',
    undefined,
    'twin/deeper/x.json',
  )
}

/** Where a conversation is in a layout. */
export function pathOf(layout: 'flat' | 'nested' | 'user', userId: string, id: string): string {
  if (layout === 'flat') return `conversations/${id}.json`
  return layout === 'nested' ? `conversations/${userId}/${id}.json` : `${userId}/${id}.json`
}

type Made = { id?: unknown; title?: unknown; created_at?: unknown; messages: Fields[] } & Fields

/** The document of a conversation: questions and answers of three stages. */
export function makeConversation(
  random: Random,
  { id, messages, chars, odd, n }: { id: string; messages: number; chars: number; odd: boolean; n: number },
): Made {
  const text = () => words(random, chars) + (odd ? pick(random, ODD_TEXTS) : '')
  const document: Made = {
    id,
    created_at: new Date(START + n * 3_600_000).toISOString().slice(0, -1).concat('123'),
    title: n % 7 === 0 ? 'New Conversation' : words(random, 40),
    messages: Array.from({ length: messages }, (_, at) =>
      at % 2 === 0 ? { role: 'user', content: text() } : answer(random, text, at > 4),
    ),
  }
  if (odd) for (const change of [pick(random, ODD_DOCUMENTS), pick(random, ODD_DOCUMENTS)]) change(document)
  return document
}

function answer(random: Random, text: () => string, withMetadata: boolean): Fields {
  const labels = ['Response A', 'Response B', 'Response C']
  const fields: Fields = {
    role: 'assistant',
    stage1: MODELS.map((model) => ({ model, response: text() })),
    stage2: MODELS.map((model) => ({
      model,
      ranking: `${text()}\n\nFINAL RANKING:\n1. Response B\n2. Response A\n3. Response C`,
      parsed_ranking: ['Response B', 'Response A', 'Response C'],
    })),
    stage3: { model: MODELS[Math.floor(random() * 3)], response: text() },
  }
  if (withMetadata)
    fields.metadata = {
      label_to_model: Object.fromEntries(labels.map((label, i) => [label, MODELS[i]])),
      aggregate_rankings: MODELS.map((model, i) => ({ model, average_rank: 1 + i / 2, rankings_count: 3 })),
    }
  return fields
}

const RAW = JSON as typeof JSON & { rawJSON(text: string): unknown }
const ODD_TEXTS = ['', 'é', '\0', '\ud800', '\udc00 ', '\uffff0000', '😀', '\\u0000', '"\n\t', '\u2028', '']
const ODD_MESSAGES: Fields[] = [
  { role: 'system', content: [{ type: 'text', text: 'blocks' }] },
  { role: 'tool', content: null },
  { role: 'developer', content: 'an odd role' },
  { role: 7, content: { stage1: 'not an answer' } },
  { content: 'no role' },
  {},
  { role: 'user' },
  {
    role: 'user',
    content: 'with more',
    timestamp: '2024-05-01T10:00:00',
    id: RAW.rawJSON('12345678901234567890'),
  },
  {
    role: 'assistant',
    content: 'both',
    stage3: { model: 'm', response: 'r' },
    created_at: '2024-05-02T10:00:00Z',
  },
  { role: 'assistant', stage1: null, stage2: [], stage3: {}, metadata: null, loading: { stage1: false } },
  { role: 'user', content: 1.5, meta: { a: [1, { '\0': '\ud800' }] }, 'odd \\ key\n': RAW.rawJSON('1E400') },
]
const ODD_DOCUMENTS: ((document: Made) => void)[] = [
  (document) => void document.messages.push(...ODD_MESSAGES),
  (document) => void delete document.created_at,
  (document) => void delete document.title,
  (document) => void delete document.id,
  (document) => void Object.assign(document, { id: 'another id' }),
  (document) => void Object.assign(document, { id: null, title: null, created_at: 1_700_000_000.25 }),
  (document) => void Object.assign(document, { title: 'x'.repeat(700), created_at: 'yesterday' }),
  (document) => void Object.assign(document, { title: '\0\ud800', created_at: '2024-02-30T00:00:00' }),
  (document) =>
    void Object.assign(document, { tags: ['a', { b: RAW.rawJSON('0.10') }], 'pinned\0': true, meta: {} }),
  (document) => void Object.assign(document, { messages: [] }),
]

const usage = (userId: string, n: number) => ({
  user_id: userId,
  tier: 'pro',
  daily_used: n,
  daily_limit: 100,
  monthly_used: 10 * n,
  monthly_limit: 3_000,
  total_queries: 100 * n,
  last_reset_daily: '2024-01-01',
  last_reset_monthly: '2024-01-01',
})

const usageOfOldSpelling = (userId: string, n: number) => ({
  user_id: userId,
  tier: 'free',
  daily_count: n,
  monthly_count: 10 * n,
  total_queries: 100 * n,
  last_daily_reset: '2024-01-02',
  last_monthly_reset: '2024-01-01',
  note: 'of an older version',
})

/** As Python writes it: two blanks, everything beyond ASCII escaped. */
export function writeDocument(document: unknown): string {
  return JSON.stringify(document, null, 2).replace(
    /[\u007f-\uffff]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

const WORDS = 'the council ranks an answer of each model without its name and then one of them writes'.split(
  ' ',
)

function words(random: Random, chars: number): string {
  let text = ''
  while (text.length < chars) text += `${pick(random, WORDS)} `
  return text.slice(0, chars)
}

const pick = <T>(random: Random, list: readonly T[]): T => list[Math.floor(random() * list.length)] as T

function uuid(random: Random): string {
  const hex = Array.from({ length: 32 }, () => Math.floor(random() * 16).toString(16)).join('')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20)}`
}
