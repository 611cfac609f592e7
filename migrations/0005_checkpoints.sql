-- The state of LangGraph threads: checkpoints, the values they are made of, and the writes that are still pending.
-- The runner writes the name of the schema that holds Threadbase's tables where :"schema" stands.
--
-- A thread here is LangGraph's: any text, with no row in threads. Values are kept once a thread, under an address made
-- from their content; a checkpoint names the addresses of its channels. A long list is a tree: its elements are values,
-- and nodes name their parts in order, so that a list which grew by one element shares all but a few nodes with the
-- list before it. Whoever stores takes the thread's advisory lock together with others, whoever removes takes it alone:
-- what a put found stored is there when it commits.

-- up

create table :"schema".checkpoints (
  user_id       text collate "C" not null,
  thread_id     text collate "C" not null,
  checkpoint_ns text collate "C" not null,
  -- grows with time (a UUID version 6): the greatest is the newest
  checkpoint_id text collate "C" not null,
  parent_id     text collate "C",
  -- of LangGraph's checkpoint format
  v             integer not null,
  -- removed for everybody, but a later checkpoint's DeltaChannel is still read through it
  hidden        boolean not null default false,
  -- channels that have a value, and where it is; null: in the record itself, or no longer needed
  channels      text[] not null,
  roots         uuid[] not null,
  metadata      jsonb not null,
  -- a column, for row level security lets no expression on jsonb be looked up in an index
  run_id        text collate "C" generated always as (metadata ->> 'run_id') stored,
  -- the rest, versions and small values, coded like data in checkpoint_blobs
  codec         smallint not null,
  key_id        text,
  record        bytea not null,
  -- what the checkpoint itself says
  created_at    timestamptz(3) not null default now(),
  primary key (user_id, thread_id, checkpoint_ns, checkpoint_id)
);

create table :"schema".checkpoint_blobs (
  user_id   text collate "C" not null,
  thread_id text collate "C" not null,
  hash      uuid not null,
  -- what the serializer calls its form; null for a node
  type      text,
  -- 0: UTF-8 text, 1: bytes, 2: Zstandard; of a node how many levels of nodes are below it
  codec     smallint not null,
  -- with which key data is encrypted (AES-256-GCM, after the coding); null: it is not
  key_id    text,
  data      bytea,
  -- the parts of a node, in order
  refs      uuid[],
  primary key (user_id, thread_id, hash),
  check ((data is null) = (refs is not null))
);

create table :"schema".checkpoint_writes (
  user_id       text collate "C" not null,
  thread_id     text collate "C" not null,
  checkpoint_ns text collate "C" not null,
  -- its checkpoint may be stored later
  checkpoint_id text collate "C" not null,
  task_id       text collate "C" not null,
  idx           integer not null,
  task_path     text collate "C" not null,
  channel       text not null,
  type          text not null,
  codec         smallint not null,
  key_id        text,
  data          bytea not null,
  primary key (user_id, thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
);

-- Up to where a thread was removed, for a while: writes that come late leave nothing behind.
create table :"schema".checkpoint_tombstones (
  user_id         text collate "C" not null,
  thread_id       text collate "C" not null,
  deleted_through text collate "C" not null,
  deleted_at      timestamptz(3) not null default now(),
  primary key (user_id, thread_id)
);

-- what runs made, for those that name theirs: to be removed by it
create index checkpoints_of_run on :"schema".checkpoints (user_id, run_id, thread_id)
  where run_id is not null;

-- compressed before they come here, where it helps
alter table :"schema".checkpoints alter column record set storage external;
alter table :"schema".checkpoint_blobs alter column data set storage external, alter column refs set storage external;
alter table :"schema".checkpoint_writes alter column data set storage external;

alter table :"schema".checkpoints enable row level security;
alter table :"schema".checkpoint_blobs enable row level security;
alter table :"schema".checkpoint_writes enable row level security;
alter table :"schema".checkpoint_tombstones enable row level security;

create policy own_rows on :"schema".checkpoints
  using (user_id = current_setting('threadbase.user_id', true))
  with check (user_id = current_setting('threadbase.user_id', true));
create policy own_rows on :"schema".checkpoint_blobs
  using (user_id = current_setting('threadbase.user_id', true))
  with check (user_id = current_setting('threadbase.user_id', true));
create policy own_rows on :"schema".checkpoint_writes
  using (user_id = current_setting('threadbase.user_id', true))
  with check (user_id = current_setting('threadbase.user_id', true));
create policy own_rows on :"schema".checkpoint_tombstones
  using (user_id = current_setting('threadbase.user_id', true))
  with check (user_id = current_setting('threadbase.user_id', true));

-- Names the lock of a thread. Two threads may share one, which costs a wait and nothing else.
create function :"schema".checkpoint_lock_key(p_user_id text, p_thread_id text) returns bigint
language sql immutable parallel safe
return hashtextextended(p_thread_id, hashtextextended(p_user_id, 20041));

-- What was removed while a statement waited for the lock of a thread must be seen as removed. Where transactions are not
-- read committed it would be taken for stored, and lost.
create function :"schema".require_read_committed() returns void
language plpgsql stable
as $function$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using errcode = 'invalid_transaction_state', message = 'the transaction is not read committed';
  end if;
end
$function$;

-- Stores a checkpoint and the values that the caller does not know to be stored, in one statement.
--
-- p_expected are the addresses that the new rows name and that the caller believes to be stored. When some are not, the
-- answer is `missing` and nothing is stored. p_children is how many children of the parent the caller has seen, null
-- when that does not matter: more of them are a `conflict`, and nothing is stored. Otherwise the answer is `stored`,
-- or `replaced` when there was a checkpoint of this id, whose values may now be unused.
create function :"schema".put_checkpoint(
  p_user_id text, p_thread_id text, p_ns text, p_id text, p_parent_id text, p_v int,
  p_channels text[], p_roots uuid[], p_metadata text, p_codec int, p_key_id text, p_record bytea,
  p_created_at timestamptz,
  -- the values and nodes, in order of hash; b_refs are the parts of all nodes, b_parts how many each has
  b_hash uuid[], b_type text[], b_codec int[], b_key_id text[], b_data bytea[], b_parts int[], b_refs uuid[],
  p_expected uuid[], p_children int
) returns text
language plpgsql volatile
-- each lookup is by key; tables may be new and without statistics
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
set jit = off
as $function$
begin
  perform :"schema".require_read_committed();
  if p_children is null then
    perform pg_advisory_xact_lock_shared(:"schema".checkpoint_lock_key(p_user_id, p_thread_id));
  else
    perform pg_advisory_xact_lock(:"schema".checkpoint_lock_key(p_user_id, p_thread_id));
    if p_children < (select count(*) from :"schema".checkpoints c
                      where c.user_id = p_user_id and c.thread_id = p_thread_id and c.checkpoint_ns = p_ns
                        and c.checkpoint_id > coalesce(p_parent_id, '') and c.checkpoint_id <> p_id
                        and c.parent_id is not distinct from p_parent_id and not c.hidden) then
      return 'conflict';
    end if;
  end if;

  if cardinality(p_expected) > 0 and exists (
    select from unnest(p_expected) e (hash)
     -- with a limit it stays a lookup for each; as a join it would read all values of the thread
     where (select true from :"schema".checkpoint_blobs b
             where b.user_id = p_user_id and b.thread_id = p_thread_id and b.hash = e.hash limit 1) is null) then
    return 'missing';
  end if;

  if cardinality(b_hash) > 0 then
    insert into :"schema".checkpoint_blobs (user_id, thread_id, hash, type, codec, key_id, data, refs)
    select p_user_id, p_thread_id, i.hash, i.type, i.codec, i.key_id, i.data,
           case when i.data is null then b_refs[i.until - i.parts + 1 : i.until] end
      from (select u.*, (sum(u.parts) over (order by u.n))::int as until
              from unnest(b_hash, b_type, b_codec, b_key_id, b_data, b_parts) with ordinality
                   as u (hash, type, codec, key_id, data, parts, n)) i
     order by i.n
        on conflict (user_id, thread_id, hash) do nothing;
  end if;

  insert into :"schema".checkpoints (user_id, thread_id, checkpoint_ns, checkpoint_id, parent_id, v, channels, roots,
                                     metadata, codec, key_id, record, created_at)
  values (p_user_id, p_thread_id, p_ns, p_id, p_parent_id, p_v, p_channels, p_roots,
          p_metadata::jsonb, p_codec, p_key_id, p_record, coalesce(p_created_at, now()))
      on conflict (user_id, thread_id, checkpoint_ns, checkpoint_id) do nothing;
  if found then
    return 'stored';
  end if;
  update :"schema".checkpoints c
     set parent_id = p_parent_id, v = p_v, channels = p_channels, roots = p_roots, metadata = p_metadata::jsonb,
         codec = p_codec, key_id = p_key_id, record = p_record, created_at = coalesce(p_created_at, now()), hidden = false
   where c.user_id = p_user_id and c.thread_id = p_thread_id and c.checkpoint_ns = p_ns and c.checkpoint_id = p_id;
  return 'replaced';
end
$function$;

-- Stores the writes of a task. Those with a negative index (errors, interrupts) replace an earlier one, others stay as
-- they were first stored. False, and nothing is stored, when their checkpoint was removed.
create function :"schema".put_checkpoint_writes(
  p_user_id text, p_thread_id text, p_ns text, p_id text, p_task_id text, p_task_path text,
  w_idx int[], w_channel text[], w_type text[], w_codec int[], w_key_id text[], w_data bytea[]
) returns boolean
language plpgsql volatile
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
set jit = off
as $function$
begin
  perform :"schema".require_read_committed();
  perform pg_advisory_xact_lock_shared(:"schema".checkpoint_lock_key(p_user_id, p_thread_id));
  if exists (select from :"schema".checkpoint_tombstones t
              where t.user_id = p_user_id and t.thread_id = p_thread_id and t.deleted_through >= p_id)
     and not exists (select from :"schema".checkpoints c
                      where c.user_id = p_user_id and c.thread_id = p_thread_id and c.checkpoint_ns = p_ns
                        and c.checkpoint_id = p_id and not c.hidden) then
    return false;
  end if;
  insert into :"schema".checkpoint_writes (user_id, thread_id, checkpoint_ns, checkpoint_id, task_id, idx, task_path,
                                           channel, type, codec, key_id, data)
  select p_user_id, p_thread_id, p_ns, p_id, p_task_id, w.idx, p_task_path, w.channel, w.type, w.codec, w.key_id, w.data
    from unnest(w_idx, w_channel, w_type, w_codec, w_key_id, w_data) as w (idx, channel, type, codec, key_id, data)
   -- in one order, so that two such statements cannot wait for each other
   order by w.idx
      on conflict (user_id, thread_id, checkpoint_ns, checkpoint_id, task_id, idx) do update
         set task_path = excluded.task_path, channel = excluded.channel, type = excluded.type,
             codec = excluded.codec, key_id = excluded.key_id, data = excluded.data
       where excluded.idx < 0;
  return true;
end
$function$;

-- Removes all of a thread, and remembers up to which checkpoint; forgets removals after which no write can be on its way
-- any more. The lock comes first, in a statement of its own: what is deleted is what is there then.
create function :"schema".delete_checkpoint_thread(p_user_id text, p_thread_id text, p_remember_s float8) returns void
language plpgsql volatile
as $function$
begin
  perform :"schema".require_read_committed();
  perform pg_advisory_xact_lock(:"schema".checkpoint_lock_key(p_user_id, p_thread_id));
  with gone as (
    delete from :"schema".checkpoints where user_id = p_user_id and thread_id = p_thread_id returning checkpoint_id
  ), writes as (
    delete from :"schema".checkpoint_writes where user_id = p_user_id and thread_id = p_thread_id returning checkpoint_id
  ), blobs as (
    delete from :"schema".checkpoint_blobs where user_id = p_user_id and thread_id = p_thread_id
  ), last as (
    select max(checkpoint_id collate "C") as id from (select * from gone union all select * from writes) x
  )
  insert into :"schema".checkpoint_tombstones as tomb (user_id, thread_id, deleted_through)
  select p_user_id, p_thread_id, last.id from last where last.id is not null
      on conflict (user_id, thread_id) do update
         set deleted_through = greatest(tomb.deleted_through, excluded.deleted_through),
             deleted_at = greatest(tomb.deleted_at, now());
  delete from :"schema".checkpoint_tombstones
   where user_id = p_user_id and deleted_at < now() - make_interval(secs => p_remember_s);
end
$function$;

-- All values and nodes below some roots, those that several nodes name perhaps more than once.
create function :"schema".checkpoint_parts(p_user_id text, p_thread_id text, p_roots uuid[])
returns table (hash uuid, type text, codec smallint, key_id text, data bytea, refs uuid[])
language plpgsql stable
set plan_cache_mode = force_generic_plan
set jit = off
as $function$
declare
  v_level uuid[] := p_roots;
  v_values uuid[] := '{}';
  v_nodes uuid[];
  v_parts uuid[];
begin
  -- a level at a time, and all values in the end: a recursive query would carry them along. With a limit each part is
  -- looked up by its key, whatever the planner thinks of the table.
  while cardinality(v_level) > 0 loop
    return query
      select b.* from unnest(v_level) part (hash), lateral (
        select c.hash, c.type, c.codec, c.key_id, c.data, c.refs from :"schema".checkpoint_blobs c
         where c.user_id = p_user_id and c.thread_id = p_thread_id and c.hash = part.hash limit 1) b;
    select array_agg(distinct r.hash) filter (where b.codec > 0), array_agg(r.hash) filter (where b.codec = 0)
      into v_nodes, v_parts
      from unnest(v_level) part (hash), lateral (
             select c.codec, c.refs from :"schema".checkpoint_blobs c
              where c.user_id = p_user_id and c.thread_id = p_thread_id and c.hash = part.hash limit 1) b,
           unnest(b.refs) r (hash);
    v_values := v_values || coalesce(v_parts, '{}');
    v_level := v_nodes;
  end loop;
  return query
    select b.* from (select distinct u.hash from unnest(v_values) u (hash)) part, lateral (
      select c.hash, c.type, c.codec, c.key_id, c.data, c.refs from :"schema".checkpoint_blobs c
       where c.user_id = p_user_id and c.thread_id = p_thread_id and c.hash = part.hash limit 1) b;
end
$function$;

-- down

drop function :"schema".checkpoint_parts(text, text, uuid[]);
drop function :"schema".delete_checkpoint_thread(text, text, float8);
drop function :"schema".put_checkpoint_writes(text, text, text, text, text, text, int[], text[], text[], int[], text[], bytea[]);
drop function :"schema".put_checkpoint(text, text, text, text, text, int, text[], uuid[], text, int, text, bytea,
  timestamptz, uuid[], text[], int[], text[], bytea[], int[], uuid[], uuid[], int);
drop function :"schema".require_read_committed();
drop function :"schema".checkpoint_lock_key(text, text);
drop table :"schema".checkpoint_tombstones;
drop table :"schema".checkpoint_writes;
drop table :"schema".checkpoint_blobs;
drop table :"schema".checkpoints;
