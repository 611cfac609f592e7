import { type RawBuilder, sql } from 'kysely'
import { LESS, START, STOP } from '../snippet.ts'
import { language } from '../text/repo.ts'

/*
 * What of a text is shown with a hit, in a query that has `shown` of wordsCtes.
 */

const HEADLINE = `StartSel="${START}", StopSel="${STOP}", MaxFragments=2, MaxWords=30, MinWords=12, ShortWord=0, FragmentDelimiter=" … "`
const FIRST_PART = 20_000
const SECOND_PART = 180_000

/** The text around the words of the query, marked: those of the beginning first, which are the quicker to find. */
export function headline(body: RawBuilder<unknown>, words: RawBuilder<unknown>): RawBuilder<unknown> {
  const plain = sql`replace(translate(${body}, ${START + STOP + LESS}, ''), '<', ${LESS})`
  const over = (part: RawBuilder<unknown>) =>
    sql`ts_headline(${language}, ${part}, (select marks from shown), ${HEADLINE})`
  return sql`(
    select case when length(x.body) <= ${FIRST_PART}::int or strpos(x.head, ${START}) > 0
                     or not coalesce(${words} @@ (select marks from shown), false) then x.head
                else ${over(sql`substr(x.body, ${FIRST_PART}::int - 200, ${SECOND_PART}::int)`)} end
      from (select x.body, ${over(sql`left(x.body, ${FIRST_PART}::int)`)} as head
              from (select ${plain} as body offset 0) x offset 0) x)`
}

const EXCERPT = 10_000

/** The text around the first of the terms that it has. */
export function excerpt(body: RawBuilder<unknown>, terms: readonly string[]): RawBuilder<unknown> {
  return sql`(
    select substr(x.body, greatest(1, coalesce(min(p.at), 1) - 1000), ${EXCERPT}::int)
      from (select ${body} as body offset 0) x
      left join lateral (select nullif(strpos(lower(x.body), lower(term)), 0) as at
                           from unnest(${[...terms]}::text[]) term) p on true
     group by x.body)`
}
