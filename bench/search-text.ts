import { sql } from 'kysely'
import { textArray } from '../src/db/arrays.ts'
import { openThreadbase } from '../src/index.ts'
import type { Threadbase } from '../src/threadbase.ts'
import { dialoguesFile, readDialogues } from '../test/dialogues.ts'
import { ms, type Row, timed } from './harness.ts'
import type { SearchBench } from './search.ts'
import { createRandom, percentile } from './search-vectors.ts'

const ROWS = 1_000_000
const TENANTS = 100
const THREAD = 100
const QUERIES = 300
const STEP = 50_000
/** All rows of the user are looked at for these: nobody can be promised anything. */
const TWO_LETTERS = 'two letters of a word'
const userOf = (n: number) => `user-${n}`

/** Search by words for one tenant of a hundredth of a million messages, among those of 99 others. */
export async function textRows({ tb, url }: SearchBench): Promise<Row[]> {
  const texts = readDialogues(dialoguesFile()).flatMap(({ messages }) =>
    messages.flatMap(({ content }) =>
      typeof content === 'string' && content.length > 10 ? [content.replaceAll('\0', '')] : [],
    ),
  )
  const filled = await timed(() => fill(tb, texts))
  process.stderr.write(`  ${ROWS} messages stored in ${Math.round(filled.ms / 1_000)} s\n`)
  const queries = await apartFromStopwords(tb, makeQueries(texts))
  const own = await openThreadbase({
    ...{ databaseUrl: url, databaseSchema: tb.database.schema, env: {}, embeddings: false },
    databaseRls: 'enforce',
  })
  try {
    const rows: Row[] = []
    for (const [name, list] of Object.entries(queries)) {
      const times = await measure(tb, list)
      const p95 = percentile(times, 0.95)
      rows.push({
        work: `search by words, ${name}, p95`,
        figure: ms(p95),
        limit: `median ${ms(percentile(times, 0.5))}`,
        ...(name === TWO_LETTERS ? {} : { target: '< 20 ms', met: p95 < 20 }),
      })
    }
    const words = queries['two words'] ?? []
    const enforced = await measure(own, words.slice(0, 60))
    rows.push({
      work: 'two words under DATABASE_RLS=enforce, p95',
      figure: ms(percentile(enforced, 0.95)),
      limit: `median ${ms(percentile(enforced, 0.5))}`,
    })
    const parts = await measure(
      tb,
      words.slice(0, 40).map((q) => `${q.slice(1, 5)}-zq`),
    )
    rows.push({
      work: 'nothing has the words: parts, then spelling, p95',
      figure: ms(percentile(parts, 0.95)),
      limit: `median ${ms(percentile(parts, 0.5))}`,
    })
    const like = await measureLike(tb, words.slice(0, 60))
    rows.push({
      work: 'ILIKE of both words in the rows of the tenant, p95',
      figure: ms(percentile(like, 0.95)),
      limit: `median ${ms(percentile(like, 0.5))}`,
    })
    return rows
  } finally {
    await own.close()
  }
}

/** Each text again and again, in turn of all users: the rows of one lie all over the table. */
async function fill({ database }: Threadbase, texts: string[]): Promise<void> {
  const { db, schema } = database
  const perUser = ROWS / TENANTS
  await sql`
    insert into ${sql.id(schema, 'threads')} (user_id, id, last_seq)
    select 'user-' || u, gen_random_uuid(), ${THREAD}::bigint from generate_series(0, ${TENANTS - 1}::int) u,
           generate_series(1, ${perUser / THREAD}::int)`.execute(db)
  for (let at = 0; at < ROWS; at += STEP) {
    await sql`
      insert into ${sql.id(schema, 'messages')} (user_id, thread_id, seq, id, role, content, digest, words)
      select th.user_id, th.id, n / ${TENANTS}::int % ${THREAD}::int + 1, gen_random_uuid(), 'user', to_json(x.text), '',
             ${sql.id(schema, 'words_of')}(th.user_id, x.text)
        from generate_series(${at}::int, ${at + STEP - 1}::int) n
        join (select user_id, id, row_number() over (partition by user_id order by id) - 1 as place
                from ${sql.id(schema, 'threads')}) th
          on th.user_id = 'user-' || n % ${TENANTS}::int and th.place = n / ${TENANTS * THREAD}::int
        join unnest(${textArray(texts)}::text[]) with ordinality as x (text, place)
          on x.place = 1 + (n * 7919::bigint) % ${texts.length}::int
       order by n`.execute(db)
    process.stderr.write(`  ${at + STEP} messages\n`)
  }
  await sql`vacuum analyze ${sql.id(schema, 'messages')}`.execute(db)
}

/** What has stopwords alone is looked for in the texts themselves: a list of its own. */
async function apartFromStopwords(
  { database: { db } }: Threadbase,
  queries: Record<string, string[]>,
): Promise<Record<string, string[]>> {
  const stopwords: string[] = []
  const others: Record<string, string[]> = {}
  for (const [name, list] of Object.entries(queries)) {
    const { rows } = await sql<{ q: string; has_words: boolean }>`
      select q, numnode(websearch_to_tsquery('english', q)) > 0 as has_words
        from unnest(${textArray(list)}::text[]) with ordinality as x (q, place) order by place`.execute(db)
    others[name] = rows.filter((row) => row.has_words).map(({ q }) => q)
    // a part of two letters is a stopword by chance
    if (name !== TWO_LETTERS) stopwords.push(...rows.filter((row) => !row.has_words).map(({ q }) => q))
  }
  return { ...others, 'stopwords alone': stopwords }
}

/** Of words that stand together in a message; common ones too. */
function makeQueries(texts: string[]): Record<string, string[]> {
  const { random } = createRandom(3)
  const pick = <T>(list: readonly T[]) => list[Math.floor(random() * list.length)] as T
  const wordsOf = () => {
    for (;;) {
      const words = pick(texts).match(/\b[a-z]{4,}\b/gi) ?? []
      if (words.length >= 6) return words
    }
  }
  const make = (one: () => string) => Array.from({ length: QUERIES }, one)
  return {
    'one word': make(() => pick(wordsOf())),
    'two words': make(() => {
      const words = wordsOf()
      return `${pick(words)} ${pick(words)}`
    }),
    'a word and the beginning of one': make(() => {
      const words = wordsOf()
      return `${pick(words)} ${pick(words).slice(0, 1 + Math.floor(random() * 3))}`
    }),
    'the beginning of a word': make(() => pick(wordsOf()).slice(0, 3 + Math.floor(random() * 3))),
    [TWO_LETTERS]: make(() => pick(wordsOf()).slice(0, 2)),
    'a phrase or a word': make(() => {
      for (;;) {
        const phrases = pick(texts).match(/\b[a-z]{4,} [a-z]{4,}\b/gi) ?? []
        if (phrases.length > 0) return `"${pick(phrases)}" or "${pick(wordsOf())}"`
      }
    }),
  }
}

async function measure({ search }: Threadbase, queries: string[]): Promise<number[]> {
  const ask = (q: string) => search.messages({ userId: userOf(7) }, { q, mode: 'text', limit: 20 })
  for (const q of queries.slice(0, 10)) await ask(q)
  const times: number[] = []
  for (const q of queries) times.push((await timed(() => ask(q))).ms)
  return times
}

async function measureLike({ database: { db, schema } }: Threadbase, queries: string[]): Promise<number[]> {
  const times: number[] = []
  for (const q of queries) {
    const patterns = q.split(' ').map((word) => `%${word}%`)
    const { ms: took } = await timed(() =>
      sql`select id from ${sql.id(schema, 'messages')} m
           where user_id = ${userOf(7)} and coalesce(text, content #>> '{}') ilike all(${patterns}::text[])
           order by created_at desc, id desc limit 20`.execute(db),
    )
    times.push(took)
  }
  return times
}
