import { sql } from 'kysely'
import { textArray } from '../../db/arrays.ts'
import { type Db, t } from '../../db/schema.ts'

const mine = (userId: string, threadId: string) => sql`user_id = ${userId} and thread_id = ${threadId}`

/**
 * Keeps every put of the thread out until the transaction ends. What is done to all of a thread then joins by hashing:
 * the planner expects a few rows of a thread, and would compare each of thousands with each. Where single rows are to be
 * looked up, a `lateral` with a limit says so.
 */
export async function lockThread(tx: Db, userId: string, threadId: string): Promise<void> {
  await sql`/* checkpoints.lock */
    select pg_advisory_xact_lock(${t.checkpointLockKey}(${userId}, ${threadId})),
           set_config('enable_nestloop', 'off', true), set_config('enable_mergejoin', 'off', true),
           set_config('jit', 'off', true)`.execute(tx)
}

/** Two threads, in one order whichever is which. */
export async function lockThreads(tx: Db, userId: string, threadIds: string[]): Promise<void> {
  await sql`/* checkpoints.lock_many */
    select pg_advisory_xact_lock(l.key)
      from (select distinct ${t.checkpointLockKey}(${userId}, i.id) as key
              from unnest(${textArray(threadIds)}::text[]) i (id) order by 1) l`.execute(tx)
}

/** Removes all of a thread, alone, in one statement (see migrations/0005_checkpoints.sql). */
export async function deleteThread(
  db: Db,
  userId: string,
  threadId: string,
  rememberS: number,
): Promise<void> {
  await sql`/* checkpoints.delete_thread */
    select ${t.deleteCheckpointThread}(${userId}, ${threadId}, ${rememberS})`.execute(db)
}

/** Forgets removals after which no write can be on its way any more. Of a thread that was adopted they are kept for ever. */
export async function sweepTombstones(tx: Db, userId: string, olderThanS: number): Promise<void> {
  await sql`/* checkpoints.sweep_tombstones */
    delete from ${t.checkpointTombstones}
     where user_id = ${userId} and deleted_at < now() - make_interval(secs => ${olderThanS})`.execute(tx)
}

/** Which checkpoints of a thread go: those of some runs, or those that are old enough and not among the newest. */
export type Doomed = { olderThanS?: number; keepLatest?: number } | { runIds: string[] }

/** In the words of the index. */
const ofRuns = (runIds: string[]) => sql`
  run_id is not null and run_id = any (${textArray(runIds)}::text[])`

/** Hides the doomed checkpoints. Returns how many. */
export async function hideCheckpoints(
  tx: Db,
  userId: string,
  threadId: string,
  doomed: Doomed,
): Promise<number> {
  if ('runIds' in doomed) return hideRuns(tx, userId, threadId, doomed.runIds)
  const { olderThanS = null, keepLatest = 0 } = doomed
  // by their place: no plan can make a join of the thread with itself out of it, and the lock keeps them where they are
  const { numAffectedRows } = await sql`
    /* checkpoints.hide */
    update ${t.checkpoints} set hidden = true
     where ctid = any (array(
             select d.ctid
               from (select ctid, created_at, row_number() over (partition by checkpoint_ns order by checkpoint_id desc) as nth
                       from ${t.checkpoints} where ${mine(userId, threadId)} and not hidden) d
              where d.nth > ${keepLatest}
                and (${olderThanS}::float8 is null or d.created_at < now() - make_interval(secs => ${olderThanS}))))`.execute(
    tx,
  )
  return Number(numAffectedRows ?? 0)
}

async function hideRuns(tx: Db, userId: string, threadId: string, runIds: string[]): Promise<number> {
  const { numAffectedRows } = await sql`
    /* checkpoints.hide_runs */
    update ${t.checkpoints} set hidden = true
     where ${mine(userId, threadId)} and ${ofRuns(runIds)} and not hidden`.execute(tx)
  return Number(numAffectedRows ?? 0)
}

/**
 * Removes hidden checkpoints, except those that a visible one is read through: the ancestors of one whose DeltaChannels
 * (`counters_since_delta_snapshot`) have no value in it, up to where they have one; of these only that value and the
 * writes to these channels stay. Likewise what the parent of one of an old format sent. Returns how many writes went.
 *
 * Writes of no checkpoint go, too, once a later checkpoint is older than `lateS` seconds: theirs will not come any more.
 */
export async function removeHidden(tx: Db, userId: string, threadId: string, lateS: number): Promise<number> {
  const { rows } = await sql<{ writes: number }>`
    /* checkpoints.remove_hidden */
    with recursive need (ns, id, channel) as (
      select k.checkpoint_ns, k.parent_id, d.channel
        from ${t.checkpoints} k, lateral (
               select jsonb_object_keys(k.metadata -> 'counters_since_delta_snapshot') as channel
                where jsonb_typeof(k.metadata -> 'counters_since_delta_snapshot') = 'object') d
       where k.user_id = ${userId} and k.thread_id = ${threadId} and not k.hidden
         and k.parent_id is not null and d.channel <> all (k.channels)
      union
      select n.ns, p.parent_id, n.channel
        from need n, lateral (
               select c.parent_id, c.channels from ${t.checkpoints} c
                where c.user_id = ${userId} and c.thread_id = ${threadId}
                  and c.checkpoint_ns = n.ns and c.checkpoint_id = n.id limit 1) p
       where p.parent_id is not null and n.channel <> all (p.channels)
    ), sent as (
      select k.checkpoint_ns as ns, k.parent_id as id, '__pregel_tasks' as channel
        from ${t.checkpoints} k
       where k.user_id = ${userId} and k.thread_id = ${threadId} and not k.hidden and k.parent_id is not null and k.v < 4
    ), needed as materialized (
      select * from need union select * from sent
    ), gone as (
      delete from ${t.checkpoints} c
       where ${mine(userId, threadId)} and hidden
         and not exists (select from needed n where n.ns = c.checkpoint_ns and n.id = c.checkpoint_id)
    ), trimmed as (
      update ${t.checkpoints} c
         set roots = array(select case when u.channel = any (n.channels) then u.root end
                             from unnest(c.channels, c.roots) with ordinality as u (channel, root, n) order by u.n)
        from (select ns, id, array_agg(channel) as channels from needed group by 1, 2) n
       where ${mine(userId, threadId)} and hidden and c.checkpoint_ns = n.ns and c.checkpoint_id = n.id
         and exists (select from unnest(c.channels, c.roots) as u (channel, root)
                      where u.root is not null and u.channel <> all (n.channels))
    ), writes as (
      delete from ${t.checkpointWrites} w
       using ${t.checkpoints} c
       where w.user_id = ${userId} and w.thread_id = ${threadId}
         and c.user_id = ${userId} and c.thread_id = ${threadId} and c.hidden
         and c.checkpoint_ns = w.checkpoint_ns and c.checkpoint_id = w.checkpoint_id
         and not exists (select from needed n where n.ns = w.checkpoint_ns and n.id = w.checkpoint_id
                            and n.channel = w.channel)
      returning 1
    ), lost as (
      delete from ${t.checkpointWrites} w
       where w.user_id = ${userId} and w.thread_id = ${threadId}
         and w.checkpoint_id < (select max(checkpoint_id) from ${t.checkpoints}
                                 where ${mine(userId, threadId)} and created_at < now() - make_interval(secs => ${lateS}))
         and not exists (select from ${t.checkpoints} c
                          where c.user_id = ${userId} and c.thread_id = ${threadId}
                            and c.checkpoint_ns = w.checkpoint_ns and c.checkpoint_id = w.checkpoint_id)
      returning 1
    ), tombstone as (
      insert into ${t.checkpointTombstones} as tomb (user_id, thread_id, deleted_through)
      select ${userId}, ${threadId}, max(checkpoint_id) from ${t.checkpoints}
       where ${mine(userId, threadId)} and hidden
      having max(checkpoint_id) is not null
          on conflict (user_id, thread_id) do update
             set deleted_through = greatest(tomb.deleted_through, excluded.deleted_through), deleted_at = greatest(tomb.deleted_at, now())
    )
    select count(*)::int as writes from (select from writes union all select from lost) w`.execute(tx)
  return rows[0]?.writes ?? 0
}

/** Removes the values and nodes that no checkpoint of the thread leads to. Returns how many. */
export async function sweepBlobs(tx: Db, userId: string, threadId: string): Promise<number> {
  const { numAffectedRows } = await sql`
    /* checkpoints.sweep */
    with recursive live (hash) as (
      select r.hash from ${t.checkpoints} c, unnest(c.roots) r (hash) where ${mine(userId, threadId)} and r.hash is not null
      union
      select r.hash
        from live, lateral (
               select c.refs from ${t.checkpointBlobs} c
                where c.user_id = ${userId} and c.thread_id = ${threadId} and c.hash = live.hash limit 1) b,
             unnest(b.refs) r (hash)
    )
    delete from ${t.checkpointBlobs} b
     where ${mine(userId, threadId)} and not exists (select from live where live.hash = b.hash)`.execute(tx)
  return Number(numAffectedRows ?? 0)
}

/** Of those that are asked for, or of all, the threads that have checkpoints. */
export async function listThreadIds(db: Db, userId: string, runIds?: string[]): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`
    /* checkpoints.thread_ids */
    select distinct thread_id as id from ${t.checkpoints} where user_id = ${userId} and not hidden
       ${runIds === undefined ? sql`` : sql`and ${ofRuns(runIds)}`} order by 1`.execute(db)
  return rows.map(({ id }) => id)
}

/** The first user after one who has checkpoints. Undefined: there is none. For operators: it sees all users. */
export async function nextUser(db: Db, after: string): Promise<string | undefined> {
  const { rows } = await sql<{ id: string }>`
    /* checkpoints.next_user */
    select user_id as id from ${t.checkpoints} where user_id > ${after} and not hidden order by user_id limit 1`.execute(
    db,
  )
  return rows[0]?.id
}

export type ThreadRow = { threadId: string; checkpointId: string; updatedAt: Date }

/** By id, each with its newest checkpoint: one step along the index a thread, however many checkpoints there are. */
export async function listThreads(
  db: Db,
  userId: string,
  after: string,
  limit: number,
): Promise<ThreadRow[]> {
  const next = (from: ReturnType<typeof sql>) => sql`
    select thread_id from ${t.checkpoints}
     where user_id = ${userId} and thread_id > ${from} and not hidden order by thread_id limit 1`
  const { rows } = await sql<ThreadRow>`
    /* checkpoints.threads */
    with recursive thread (id, n) as (
      select x.thread_id, 1 from (${next(sql`${after}`)}) x
      union all
      select x.thread_id, thread.n + 1 from thread, lateral (${next(sql`thread.id`)}) x where thread.n < ${limit}
    )
    select thread.id as "threadId", newest.checkpoint_id as "checkpointId", newest.created_at as "updatedAt"
      from thread, lateral (
             select checkpoint_id, created_at from ${t.checkpoints}
              where user_id = ${userId} and thread_id = thread.id and not hidden
              order by checkpoint_id desc limit 1) newest
     order by thread.id`.execute(db)
  return rows
}

/** Copies all of a thread. Returns how many checkpoints it has; none are copied when the target has anything. */
export async function copyThread(
  tx: Db,
  userId: string,
  source: string,
  target: string,
): Promise<{ copied: number; taken: boolean }> {
  const { rows } = await sql<{ copied: number; taken: boolean }>`
    /* checkpoints.copy */
    with taken as materialized (
      select exists (select from ${t.checkpoints} where ${mine(userId, target)})
          or exists (select from ${t.checkpointWrites} where ${mine(userId, target)}) as yes
    ), blobs as (
      insert into ${t.checkpointBlobs} (user_id, thread_id, hash, type, codec, key_id, data, refs)
      select user_id, ${target}, hash, type, codec, key_id, data, refs
        from ${t.checkpointBlobs}, taken where ${mine(userId, source)} and not taken.yes
          on conflict do nothing
    ), writes as (
      insert into ${t.checkpointWrites} (user_id, thread_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path,
                                         channel, type, codec, key_id, data)
      select user_id, ${target}, checkpoint_ns, checkpoint_id, task_id, idx, task_path, channel, type, codec, key_id, data
        from ${t.checkpointWrites}, taken where ${mine(userId, source)} and not taken.yes
    ), copied as (
      insert into ${t.checkpoints} (user_id, thread_id, checkpoint_ns, checkpoint_id, parent_id, v, hidden, channels,
                                    roots, metadata, codec, key_id, record, created_at)
      select user_id, ${target}, checkpoint_ns, checkpoint_id, parent_id, v, hidden, channels, roots, metadata, codec,
             key_id, record, created_at
        from ${t.checkpoints}, taken where ${mine(userId, source)} and not taken.yes
      returning 1
    )
    select (select count(*) from copied)::int as copied, yes as taken from taken`.execute(tx)
  return rows[0] ?? { copied: 0, taken: false }
}
