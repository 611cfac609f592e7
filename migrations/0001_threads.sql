-- Threads, their messages and their model configuration.
-- The runner writes the name of the schema that holds Threadbase's tables where :"schema" stands.
--
-- user_id comes first in every key, unique index and foreign key, so that a row of one user cannot reference a row
-- of another, each lookup is one index descent, and the tables can be distributed by user_id.

-- up

create table :"schema".threads (
  user_id     text collate "C" not null,
  id          uuid not null,
  title       text check (char_length(title) <= 500),
  kind        text not null default 'chat' check (kind in ('chat', 'council', 'chain_analysis', 'flow')),
  meta        jsonb not null default '{}' check (jsonb_typeof(meta) = 'object'),
  -- the highest seq that was ever given out; never goes back, so that a deleted seq is not used again
  last_seq    bigint not null default 0,
  -- the thread this one was forked from, while that one exists
  forked_from uuid,
  -- digest of the body that made the thread under a client's id: tells a repeated request from another one
  digest      bytea,
  created_at  timestamptz(3) not null default now(),
  updated_at  timestamptz(3) not null default now(),
  archived_at timestamptz(3),
  ended_at    timestamptz(3),
  primary key (user_id, id),
  foreign key (user_id, forked_from) references :"schema".threads (user_id, id) on delete set null (forked_from)
);

create index threads_by_update on :"schema".threads (user_id, updated_at desc, id desc);
create index threads_by_origin on :"schema".threads (user_id, forked_from) where forked_from is not null;

create table :"schema".messages (
  user_id     text collate "C" not null,
  thread_id   uuid not null,
  -- order within the thread, from 1
  seq         bigint not null,
  id          uuid not null,
  -- the client's idempotency key
  message_id  text collate "C" check (char_length(message_id) <= 255),
  -- the seq of the message this one answers or follows; null for a root
  parent_seq  bigint check (parent_seq < seq),
  role        text not null check (role in ('user', 'assistant', 'system', 'tool')),
  -- json, not jsonb: content comes back byte for byte, key order, NUL, lone surrogates and long numbers included
  content     json not null,
  -- plain-text rendering for search and lists; null when content is that very string: coalesce(text, content #>> '{}')
  text        text,
  tool_name   text check (char_length(tool_name) <= 255),
  tool_input  json,
  tool_output json,
  meta        jsonb not null default '{}' check (jsonb_typeof(meta) = 'object'),
  -- digest of role, content and tool fields: tells a repeated append from a conflicting one
  digest      bytea not null,
  created_at  timestamptz(3) not null default now(),
  primary key (user_id, thread_id, seq),
  foreign key (user_id, thread_id) references :"schema".threads (user_id, id) on delete cascade
);

-- The lookups by id and by message_id must never be answered by walking a whole thread along the primary key, which
-- the planner finds equally good while the table has no statistics (always, on the embedded store). So neither of
-- these indexes shares (user_id, thread_id) with it: one leaves thread_id out, the other has it as an expression.
create unique index messages_by_id on :"schema".messages (user_id, id);
create unique index messages_by_message_id on :"schema".messages (user_id, uuid_send(thread_id), message_id)
  where message_id is not null;

create table :"schema".configs (
  user_id        text collate "C" not null,
  thread_id      uuid not null,
  model          text check (char_length(model) <= 255),
  temperature    double precision,
  system_prompt  text,
  context_window integer check (context_window > 0),
  settings       jsonb not null default '{}' check (jsonb_typeof(settings) = 'object'),
  primary key (user_id, thread_id),
  foreign key (user_id, thread_id) references :"schema".threads (user_id, id) on delete cascade
);

alter table :"schema".threads enable row level security;
alter table :"schema".messages enable row level security;
alter table :"schema".configs enable row level security;

create policy own_rows on :"schema".threads
  using (user_id = current_setting('threadbase.user_id', true))
  with check (user_id = current_setting('threadbase.user_id', true));
create policy own_rows on :"schema".messages
  using (user_id = current_setting('threadbase.user_id', true))
  with check (user_id = current_setting('threadbase.user_id', true));
create policy own_rows on :"schema".configs
  using (user_id = current_setting('threadbase.user_id', true))
  with check (user_id = current_setting('threadbase.user_id', true));

-- Appends messages of one or many calls in one statement. All arrays have one element a message, in order; a call
-- (p_call) is one caller's request, on one thread, and is stored whole or not at all.
--
-- The threads are locked first, in key order, so that two batches cannot deadlock. Each statement of a volatile
-- function sees what was committed before it began: behind the lock, the second statement sees every message that
-- an earlier holder of the lock appended. So seq grows in commit order without gaps, a known message_id is found,
-- and a reader that has seen seq n has seen all before it.
--
-- Answers one row a message, in order: status `new`, `known` (already stored with equal content, named by id and
-- seq), or why its call was refused: `no_thread`, `no_parent`, `conflict`; the other messages of a refused call say
-- `refused`. A message_id comes at most once in a batch. meta is that of a known message. parent_id is null when the
-- parent came in the same batch: parent_seq names it.
create function :"schema".append_messages(
  p_call int[], p_user_id text[], p_thread_id uuid[], p_id uuid[], p_message_id text[],
  -- 'auto': the thread's newest message; 'root': none; 'batch': element p_parent_n of this batch;
  -- 'stored': the message with this id or message_id
  p_parent_mode text[], p_parent_n int[], p_parent_id uuid[], p_parent_key text[],
  p_role text[], p_content text[], p_text text[], p_tool_name text[], p_tool_input text[], p_tool_output text[],
  p_meta text[], p_digest text[], p_created_at timestamptz[],
  -- when the message says its thread was updated; null for now
  p_updated_at timestamptz[]
) returns table (
  n bigint, status text, id uuid, seq bigint, parent_seq bigint, parent_id uuid, meta jsonb, created_at timestamptz
)
language plpgsql volatile
-- the tables may be new and without statistics; each lookup here is by key and must use its index
set enable_seqscan = off
as $function$
#variable_conflict use_column
begin
  perform 1
    from :"schema".threads th
   where (th.user_id, th.id) in (select x.u, x.i from unnest(p_user_id, p_thread_id) as x (u, i))
   order by th.user_id, th.id
     for no key update;

  return query
  with looked_up as materialized (
    select i.*, th.last_seq,
           known.seq as known_seq, known.id as known_id, known.created_at as known_created_at,
           known.parent_seq as known_parent_seq, known.meta as known_meta, known.digest as known_digest,
           case when i.parent_mode = 'stored' then coalesce(
             (select case when p.thread_id = i.thread_id then p.seq end from :"schema".messages p
               where p.user_id = i.user_id and p.id = i.parent_id),
             (select p.seq from :"schema".messages p
               where p.user_id = i.user_id and uuid_send(p.thread_id) = uuid_send(i.thread_id)
                 and p.message_id = i.parent_key))
           end as stored_parent_seq
      from unnest(p_call, p_user_id, p_thread_id, p_id, p_message_id, p_parent_mode, p_parent_n, p_parent_id,
                  p_parent_key, p_digest)
           with ordinality
           as i (call, user_id, thread_id, id, message_id, parent_mode, parent_n, parent_id, parent_key, digest, n)
      left join lateral (
        select t.last_seq from :"schema".threads t where t.user_id = i.user_id and t.id = i.thread_id limit 1
      ) th on true
      left join lateral (
        select m.seq, m.id, m.created_at, m.parent_seq, m.meta, m.digest
          from :"schema".messages m
         -- a thread that never had a message is not searched
         where th.last_seq > 0
           and m.user_id = i.user_id and uuid_send(m.thread_id) = uuid_send(i.thread_id)
           and m.message_id = i.message_id
         limit 1
      ) known on true
  ), judged as (
    select l.*,
           case
             when l.last_seq is null then 'no_thread'
             when l.known_seq is not null and l.known_digest = decode(l.digest, 'hex') then 'known'
             when l.known_seq is not null then 'conflict'
             when l.parent_mode = 'stored' and l.stored_parent_seq is null then 'no_parent'
             else 'new'
           end as verdict
      from looked_up l
  ), decided as (
    select j.*,
           case
             when j.verdict in ('new', 'known')
                  and bool_or(j.verdict not in ('new', 'known')) over (partition by j.call) then 'refused'
             else j.verdict
           end as decision
      from judged j
  ), numbered as materialized (
    select d.*,
           case when d.decision = 'new' then
             d.last_seq + count(*) filter (where d.decision = 'new')
                            over (partition by d.user_id, d.thread_id order by d.n)
           end as new_seq
      from decided d
  ), seqs as materialized (
    select array_agg(coalesce(known_seq, new_seq) order by n) as of_n from numbered
  ), placed as materialized (
    select f.*,
           case when f.decision = 'new' then
             case f.parent_mode
               when 'root' then null
               when 'batch' then seqs.of_n[f.parent_n]
               when 'stored' then f.stored_parent_seq
               else case when f.new_seq > f.last_seq + 1 then f.new_seq - 1 else
                 (select m.seq from :"schema".messages m
                   where m.user_id = f.user_id and m.thread_id = f.thread_id
                   order by m.seq desc limit 1) end
             end
           else f.known_parent_seq end as parent_seq,
           coalesce(f.known_created_at, p_created_at[f.n], now())::timestamptz(3) as created
      from numbered f, seqs
  ), stored as (
    insert into :"schema".messages (user_id, thread_id, seq, id, message_id, parent_seq, role, content, text,
                                    tool_name, tool_input, tool_output, meta, digest, created_at)
    select p.user_id, p.thread_id, p.new_seq, p.id, p.message_id, p.parent_seq, p_role[p.n],
           p_content[p.n]::json, p_text[p.n], p_tool_name[p.n], p_tool_input[p.n]::json, p_tool_output[p.n]::json,
           coalesce(p_meta[p.n]::jsonb, '{}'), decode(p.digest, 'hex'), p.created
      from placed p
     where p.decision = 'new'
  ), touched as (
    update :"schema".threads th
       set last_seq = newest.seq,
           updated_at = greatest(th.updated_at, least(newest.updated, now()))
      from (select p.user_id, p.thread_id, max(p.new_seq) as seq, max(coalesce(p_updated_at[p.n], now())) as updated
              from placed p where p.decision = 'new' group by 1, 2) newest
     where th.user_id = newest.user_id and th.id = newest.thread_id
  )
  select p.n, p.decision, coalesce(p.known_id, p.id), coalesce(p.known_seq, p.new_seq), p.parent_seq,
         case when p.parent_seq <= p.last_seq then
           -- a range and an order: a plan made while the table is small must not settle on the index by id
           (select m.id from :"schema".messages m
             where m.user_id = p.user_id and m.thread_id = p.thread_id
               and m.seq >= p.parent_seq and m.seq <= p.parent_seq
             order by m.seq limit 1)
         end,
         p.known_meta, p.created::timestamptz
    from placed p
   order by p.n;
end
$function$;

-- down

drop function :"schema".append_messages(int[], text[], uuid[], uuid[], text[], text[], int[], uuid[], text[], text[],
  text[], text[], text[], text[], text[], text[], text[], timestamptz[], timestamptz[]);
drop table :"schema".configs;
drop table :"schema".messages;
drop table :"schema".threads;
