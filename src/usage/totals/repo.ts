import { type RawBuilder, sql } from 'kysely'
import { decodeText } from '../../core/json.ts'
import { type Db, t } from '../../db/schema.ts'
import type { UsageTotal } from '../schema.ts'
import { MAX_TOKENS, PLACES, type Place } from './places.ts'
import { MAX_TOTALS, type Range } from './range.ts'

type Expression = RawBuilder<unknown>

/** The first of some places of a call, or of the metadata that it is in, as `read` makes of it. */
const firstOf = (places: readonly Place[], read: (at: Expression) => Expression) =>
  sql`coalesce(${sql.join(places.map(({ of, path }) => read(sql`(${sql.ref(of)} #> ${sql.lit(`{${path.join()}}`)}::text[])`)))})`

const asText = (at: Expression) => sql`case when jsonb_typeof${at} = 'string' then ${at} #>> '{}' end`
const asNumber = (at: Expression) => sql`case when jsonb_typeof${at} = 'number' then ${at}::numeric end`
/** What is no count of tokens is 0. */
const tokens = (places: readonly Place[]) => {
  const value = sql`trunc(${firstOf(places, asNumber)})`
  return sql`case when ${value} between 0 and ${sql.lit(MAX_TOKENS)} then ${value} else 0 end`
}
const cost = sql`case when ${firstOf(PLACES.cost, asNumber)} >= 0 then round(${firstOf(PLACES.cost, asNumber)}, 12) end`

// the messages that a fork has of its origin were paid for there, while that is there
const notCopied = sql`
  and not exists (select from ${t.threads} f
                   where f.user_id = m.user_id and f.id = m.thread_id and f.forked_from is not null
                     and m.created_at < f.created_at)`

/** Newest day first, then by model; one more than {@link MAX_TOTALS} at most. */
export async function sumMessages(db: Db, userId: string, { since, until }: Range): Promise<UsageTotal[]> {
  const { rows } = await sql<UsageTotal & { input: string; output: string; costText: string | null }>`
    /* usage.totals */
    select c.day::text, c.model, count(*) as calls, sum(c.input)::text as input, sum(c.output)::text as output,
           sum(c.cost)::text as "costText"
      from (select (m.created_at at time zone 'utc')::date as day, ${firstOf(PLACES.model, asText)} as model,
                   ${tokens(PLACES.input)} as input, ${tokens(PLACES.output)} as output, ${cost} as cost
              from ${t.messages} m
             cross join lateral (select coalesce(m.meta -> 'usage', m.meta -> 'usage_metadata') as usage) a
             cross join lateral jsonb_array_elements(
                   case when jsonb_typeof(a.usage) = 'array' then a.usage else jsonb_build_array(a.usage) end) call
             where m.user_id = ${userId} and m.created_at >= ${since}::timestamptz
               ${notCopied}
               and m.created_at < ${until}::timestamptz and m.meta ?| '{usage,usage_metadata}'::text[]
               and jsonb_typeof(call) = 'object') c
     group by c.day, c.model order by c.day desc, c.model collate "C" limit ${MAX_TOTALS + 1}::int`.execute(
    db,
  )
  return rows.map(({ day, model, calls, input, output, costText }) => ({
    day,
    model: model === null ? null : decodeText(model),
    calls,
    inputTokens: Number(input),
    outputTokens: Number(output),
    cost: costText === null ? null : Number(costText),
  }))
}
