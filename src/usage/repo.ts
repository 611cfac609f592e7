import { type RawBuilder, sql } from 'kysely'
import { encodeJson } from '../core/json.ts'
import { intArray, textArray } from '../db/arrays.ts'
import { type Db, t } from '../db/schema.ts'
import type { ConsumeBatch } from './consume-queue.ts'
import { NO_DAY, tierOf } from './rules.ts'
import type { UsagePatch, UsageReceipt, UsageRecord, UsageSettings } from './schema.ts'

/** A row, with the clock that it was read by. */
export type UsageRow = UsageRecord & { now: Date; today: string }

const columns = sql`u.tier, u.daily_used as "dailyUsed", u.daily_limit as "dailyLimit", u.monthly_used as "monthlyUsed",
  u.monthly_limit as "monthlyLimit", u.total_queries as "totalQueries", u.last_reset_daily::text as "lastResetDaily",
  u.last_reset_monthly::text as "lastResetMonthly"`

/** Undefined: the database's own. */
type Clock = Date | undefined

const nowBy = (clock: Clock) => sql`coalesce(${clock ?? null}::timestamptz, now())`
const dayBy = (clock: Clock) => sql`(${nowBy(clock)} at time zone 'utc')::date`
const clockBy = (clock: Clock) => sql`${nowBy(clock)} as now, ${dayBy(clock)}::text as today`
const monthOf = (day: RawBuilder<unknown>) => sql`date_trunc('month', ${day}::timestamp)::date`

/**
 * The statement that counts, for several users at once and the tiers of a configuration, whose limits are part of its text.
 * That is therefore always the same, and is put together once. A user in whose way a limit is gets no row, and nothing
 * of theirs has changed.
 */
export function prepareConsume(db: Db, settings: UsageSettings, clock: () => Clock): ConsumeBatch {
  const compiled = consumeStatement(settings).compile(db)
  return async (calls) => {
    const values: Record<Parameter, unknown> = {
      userIds: textArray(calls.map(({ userId }) => userId)),
      tiers: textArray(calls.map(({ tier }) => tier)),
      counts: intArray(calls.map(({ n }) => n)),
      fitNew: intArray(calls.map(({ n, mostOfNew }) => Number(n <= mostOfNew))),
      clock: clock() ?? null,
    }
    const parameters = compiled.parameters.map((parameter) => values[(parameter as Placeholder).of])
    const { rows } = await db.executeQuery<UsageRecord & { userId: string }>({ ...compiled, parameters })
    return new Map(rows.map(({ userId, ...record }) => [userId, record]))
  }
}

// the most that a counter holds: whose limit is higher has none
const MAX_INT = sql.lit(2_147_483_647)

type Parameter = 'userIds' | 'tiers' | 'counts' | 'fitNew' | 'clock'
type Placeholder = { of: Parameter }
const parameter = (of: Parameter) => sql.val<Placeholder>({ of })

/** With the place of each parameter named in its stead. */
export function consumeStatement(settings: UsageSettings): RawBuilder<UsageRecord & { userId: string }> {
  const limitOf = (own: 'daily_limit' | 'monthly_limit', ofTier: 'daily' | 'monthly') => {
    const cases = [...settings.tiers.keys()].map(
      (name) => sql`when ${sql.lit(name)} then ${sql.lit(tierOf(settings, name)[ofTier])}`,
    )
    const otherwise = sql.lit(tierOf(settings, settings.defaultTier)[ofTier])
    return sql`coalesce(u.${sql.ref(own)}, case u.tier ${sql.join(cases, sql` `)} else ${otherwise} end)`
  }
  const [daily, monthly] = [limitOf('daily_limit', 'daily'), limitOf('monthly_limit', 'monthly')]
  // as countingDay and turnTo of rules.ts
  const day = sql`case when u.last_reset_daily = excluded.last_reset_daily + 1 then u.last_reset_daily
    else excluded.last_reset_daily end`
  const dailyUsed = sql`case when u.last_reset_daily - excluded.last_reset_daily in (0, 1) then u.daily_used else 0 end::bigint
    + excluded.daily_used`
  const isOfMonth = sql`${monthOf(sql`u.last_reset_monthly`)} = ${monthOf(sql`(${day})`)}`
  const monthlyUsed = sql`case when ${isOfMonth} then u.monthly_used else 0 end::bigint + excluded.monthly_used`
  // all servers lock rows in the same order
  return sql<UsageRecord & { userId: string }>`
    /* usage.consume */
    insert into ${t.usage} as u (user_id, tier, daily_used, monthly_used, total_queries, last_reset_daily,
                                 last_reset_monthly)
    select a.user_id, a.tier, a.n, a.n, a.n, clock.day, ${monthOf(sql`clock.day`)}
      from unnest(${parameter('userIds')}::text[], ${parameter('tiers')}::text[], ${parameter('counts')}::int[],
                  ${parameter('fitNew')}::int[]) as a (user_id, tier, n, fits_new),
           (select (coalesce(${parameter('clock')}::timestamptz, now()) at time zone 'utc')::date as day) clock
     where a.fits_new = 1 or exists (select from ${t.usage} known where known.user_id = a.user_id)
     order by a.user_id collate "C"
    on conflict (user_id) do update
       set daily_used = least(${dailyUsed}, ${MAX_INT}), monthly_used = least(${monthlyUsed}, ${MAX_INT}),
           total_queries = u.total_queries + excluded.total_queries, last_reset_daily = ${day},
           last_reset_monthly = case when ${isOfMonth} then u.last_reset_monthly else ${monthOf(sql`(${day})`)} end,
           updated_at = now()
     where (${daily} < 0 or ${dailyUsed} <= ${daily}) and (${monthly} < 0 or ${monthlyUsed} <= ${monthly})
    returning u.user_id as "userId", ${columns}`
}

/** A user without a row has nulls. */
export async function findRow(
  db: Db,
  userId: string,
  clock: Clock,
): Promise<Omit<UsageRow, 'dailyUsed'> & { dailyUsed: number | null }> {
  const { rows } = await sql<UsageRow>`
    /* usage.get */
    select ${columns}, a.now, a.today
      from (select ${clockBy(clock)}) a left join ${t.usage} u on u.user_id = ${userId}`.execute(db)
  return rows[0] as UsageRow
}

/** Takes back what was counted, from the counters of the receipt's day and month alone. */
export async function giveBack(db: Db, userId: string, { n, day, month }: UsageReceipt): Promise<void> {
  await sql`
    /* usage.refund */
    update ${t.usage}
       set daily_used = case when last_reset_daily = ${day}::date then greatest(daily_used - ${n}::int, 0)
                        else daily_used end,
           monthly_used = case when ${monthOf(sql`last_reset_monthly`)} = ${month}::date
                          then greatest(monthly_used - ${n}::int, 0) else monthly_used end,
           total_queries = greatest(total_queries - ${n}::int, 0), updated_at = now()
     where user_id = ${userId}`.execute(db)
}

/** Makes the row of a user who has none. */
export async function setLimits(
  db: Db,
  userId: string,
  { tier, dailyLimit, monthlyLimit }: UsagePatch,
  tierOfNew: string,
  clock: Clock,
): Promise<UsageRow> {
  const set = (column: string, value: number | null | undefined) =>
    sql`case when ${value === undefined}::boolean then u.${sql.ref(column)} else excluded.${sql.ref(column)} end`
  const { rows } = await sql<UsageRow>`
    /* usage.set */
    insert into ${t.usage} as u (user_id, tier, daily_limit, monthly_limit, last_reset_daily, last_reset_monthly)
    select ${userId}, ${tier ?? tierOfNew}, ${dailyLimit ?? null}::int, ${monthlyLimit ?? null}::int, a.day,
           ${monthOf(sql`a.day`)}
      from (select ${dayBy(clock)} as day) a
    on conflict (user_id) do update
       set tier = coalesce(${tier ?? null}::text, u.tier), daily_limit = ${set('daily_limit', dailyLimit)},
           monthly_limit = ${set('monthly_limit', monthlyLimit)}, updated_at = now()
    returning ${columns}, ${clockBy(clock)}`.execute(db)
  return rows[0] as UsageRow
}

type ToInsert = { userId: string; record: UsageRecord & { tier: string } }

/** The ids of those who had no row. */
export async function insertRows(db: Db, rows: ToInsert[]): Promise<string[]> {
  const ints = (pick: (record: UsageRecord) => number | null) =>
    sql`${intArray(rows.map(({ record }) => pick(record)))}::int[]`
  const texts = (pick: (row: ToInsert) => string | null) => sql`${textArray(rows.map(pick))}::text[]`
  const { rows: inserted } = await sql<{ user_id: string }>`
    /* usage.import */
    insert into ${t.usage} (user_id, tier, daily_used, daily_limit, monthly_used, monthly_limit, total_queries,
                            last_reset_daily, last_reset_monthly, file)
    select g.user_id, g.tier, g.daily_used, g.daily_limit, g.monthly_used, g.monthly_limit, g.total::bigint, g.day::date,
           g.month::date, g.file::json
      from unnest(${texts(({ userId }) => userId)}, ${texts(({ record }) => record.tier)},
                  ${ints(({ dailyUsed }) => dailyUsed)}, ${ints(({ dailyLimit }) => dailyLimit)},
                  ${ints(({ monthlyUsed }) => monthlyUsed)}, ${ints(({ monthlyLimit }) => monthlyLimit)},
                  ${texts(({ record }) => String(record.totalQueries))},
                  ${texts(({ record }) => record.lastResetDaily ?? NO_DAY)},
                  ${texts(({ record }) => record.lastResetMonthly ?? NO_DAY)},
                  ${texts(({ record: { file } }) => (file ? encodeJson(file) : null))})
           as g (user_id, tier, daily_used, daily_limit, monthly_used, monthly_limit, total, day, month, file)
    on conflict (user_id) do nothing
    returning user_id`.execute(db)
  return inserted.map(({ user_id }) => user_id)
}

/** By id, `limit` at most, behind `after`. */
export async function listRows(
  db: Db,
  after: string,
  limit: number,
): Promise<(UsageRecord & { userId: string })[]> {
  const { rows } = await sql<UsageRecord & { userId: string }>`
    /* usage.list */
    select u.user_id as "userId", ${columns}, u.file from ${t.usage} u where u.user_id > ${after}
     order by u.user_id limit ${limit}::int`.execute(db)
  return rows.map(({ file, ...row }) => (file ? { ...row, file } : row))
}
