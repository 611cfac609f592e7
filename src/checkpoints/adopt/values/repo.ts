import { sql } from 'kysely'
import { type Db, t } from '../../../db/schema.ts'

/**
 * What one transaction works with, gone when it ends: functions of this session that do in the database what encode.ts
 * and tree.ts do, and tables for what is in between. Equal values get equal addresses, and equal lists equal nodes, as
 * from the checkpointer itself, so that a thread goes on without storing its lists again. The exception are packs of
 * small elements, which end elsewhere.
 *
 * The tables keep values as PostgreSQL compresses them, and rows that are copied from one table to another stay
 * compressed: ours, which expect values that are compressed already, would not. Their texts sort as the peer's do: with
 * another collation its indexes would not be used.
 */
export async function prepare(tx: Db, peerBlobs: ReturnType<typeof sql.id>): Promise<void> {
  for (const statement of [...tables, cutFunction, listFunction, timeFunction, valuesFunction(peerBlobs)])
    await statement.execute(tx)
}

const tables = [
  sql`/* adopt.new */
    create temporary table adopt_new (
      n bigint generated always as identity primary key,
      thread_id text, ns text, id text
    ) on commit drop`,
  sql`/* adopt.value */
    create temporary table adopt_value (
      n bigint primary key, batch int, thread_id text, ns text, channel text, version text,
      -- as in a record; null until it is taken
      kind text, root uuid, inline text
    ) on commit drop`,
  sql`/* adopt.value_key */
    create index on pg_temp.adopt_value (thread_id, ns, channel, version)`,
  sql`/* adopt.part */
    create temporary table adopt_part (thread_id text, hash uuid, type text, data bytea) on commit drop`,
  sql`/* adopt.row */
    create temporary table adopt_row (like ${t.checkpoints}) on commit drop`,
]

/** Where the pieces of a level end: cut() of tree.ts over addresses. */
const cutFunction = sql`/* adopt.cut */
create or replace function pg_temp.adopt_cut(p_level uuid[]) returns int[]
language plpgsql immutable
as $function$
declare
  ends int[] := '{}';
  before int := 0;
  candidate int;
  length int := cardinality(p_level);
begin
  for candidate in
    select u.n from unnest(p_level) with ordinality u (hash, n)
     where get_byte(uuid_send(u.hash), 15) & 31 = 0 order by u.n
  loop
    while candidate - before > 128 loop
      before := before + 128;
      ends := array_append(ends, before);
    end loop;
    if candidate - before >= 4 then
      ends := array_append(ends, candidate);
      before := candidate;
    end if;
  end loop;
  while length - before > 128 loop
    before := before + 128;
    ends := array_append(ends, before);
  end loop;
  if length > before then
    ends := array_append(ends, length);
  end if;
  return ends;
end
$function$`

/** Stores a list of JSON texts, and returns its root. Of values only those below new nodes are looked at. */
const listFunction = sql`/* adopt.list */
create or replace function pg_temp.adopt_list(p_user text, p_thread text, p_elements text[]) returns uuid
language plpgsql volatile
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
set jit = off
as $function$
declare
  element text;
  run text;
  run_length int := 0;
  texts text[] := '{}';
  packed boolean[] := '{}';
  hashes uuid[];
  level uuid[];
  starts int[];
  ends int[];
  nodes uuid[];
  absent boolean[];
  height int := 0;
begin
  if exists (select from unnest(p_elements) e (text) where char_length(e.text) <= 64) then
    foreach element in array p_elements loop
      if char_length(element) <= 64 then
        run := case when run_length = 0 then element else run || ',' || element end;
        run_length := run_length + 1;
        continue when run_length < 4 or (run_length < 128 and hashtextextended(element, 0) & 31 <> 0);
      end if;
      if run_length > 0 then
        texts := array_append(texts, '[' || run || ']');
        packed := array_append(packed, true);
        run_length := 0;
      end if;
      if char_length(element) > 64 then
        texts := array_append(texts, element);
        packed := array_append(packed, false);
      end if;
    end loop;
    if run_length > 0 then
      texts := array_append(texts, '[' || run || ']');
      packed := array_append(packed, true);
    end if;
  else
    texts := p_elements;
    packed := array_fill(false, array[cardinality(p_elements)]);
  end if;
  hashes := array(
    select encode(substr(sha256(
             -- 'value', NUL, the type, NUL: see address.ts
             case when u.packed then '\\x76616c7565002a7061636b00'::bytea else '\\x76616c7565006a736f6e00'::bytea end
             || convert_to(u.text, 'UTF8')), 1, 16), 'hex')::uuid
      from unnest(texts, packed) with ordinality u (text, packed, n) order by u.n);

  level := hashes;
  loop
    ends := pg_temp.adopt_cut(level);
    starts := 1 || array(select u.until + 1 from unnest(ends) with ordinality u (until, n)
                          where u.n < cardinality(ends) order by u.n);
    nodes := array(
      select encode(substr(sha256('\\x6e6f646500'::bytea || convert_to(array_to_string(level[u.first : u.last], ''), 'UTF8')),
                           1, 16), 'hex')::uuid
        from unnest(starts, ends) with ordinality u (first, last, n) order by u.n);
    absent := array(
      select not exists (select from ${t.checkpointBlobs} b
                          where b.user_id = p_user and b.thread_id = p_thread and b.hash = u.hash)
        from unnest(nodes) with ordinality u (hash, n) order by u.n);
    if true = any (absent) then
      insert into ${t.checkpointBlobs} (user_id, thread_id, hash, type, codec, data, refs)
      select p_user, p_thread, u.hash, null, height, null, level[u.first : u.last]
        from unnest(nodes, starts, ends, absent) u (hash, first, last, absent)
       where u.absent
          on conflict do nothing;
      if level = hashes then
        insert into pg_temp.adopt_part (thread_id, hash, type, data)
        select distinct on (u.hash) p_thread, u.hash, case when u.packed then '*pack' else 'json' end,
               convert_to(u.text, 'UTF8')
          from unnest(texts, packed, hashes) with ordinality u (text, packed, hash, n)
         where absent[width_bucket(u.n::int, starts)]
           and not exists (select from ${t.checkpointBlobs} b
                            where b.user_id = p_user and b.thread_id = p_thread and b.hash = u.hash);
      end if;
    end if;
    level := nodes;
    height := height + 1;
    exit when cardinality(level) = 1;
  end loop;
  return level[1];
end
$function$`

/** What a checkpoint says of its time; null when that is no time. */
const timeFunction = sql`/* adopt.time */
create or replace function pg_temp.adopt_time(p_text text) returns timestamptz
language plpgsql stable
as $function$
begin
  return case when p_text ~ '^\\d{4}-\\d\\d-\\d\\dT' then p_text::timestamptz end;
exception when data_exception then
  return null;
end
$function$`

/**
 * Takes the values of a batch. What is not the text that LangGraph's serializer writes is kept whole, as it is.
 */
const valuesFunction = (peerBlobs: ReturnType<typeof sql.id>) => sql`/* adopt.values */
create or replace function pg_temp.adopt_values(p_user text, p_batch int, p_whole boolean) returns void
language plpgsql volatile
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
set jit = off
as $function$
declare
  snapshot constant text := '{"lc":2,"type":"delta_snapshot","value":';
  v record;
  body text;
  elements text[];
  its_kind text;
  its_root uuid;
begin
  for v in
    select a.n, a.thread_id, b.type, b.blob
      from pg_temp.adopt_value a join ${peerBlobs} b
        on b.thread_id = a.thread_id and b.checkpoint_ns = a.ns and b.channel = a.channel and b.version = a.version
     where a.batch = p_batch and b.blob is not null
     order by a.n
  loop
    body := null;
    elements := null;
    its_kind := 'v';
    its_root := null;
    if v.type = 'json' then
      begin
        body := convert_from(v.blob, 'UTF8');
        if p_whole then
          null;
        elsif char_length(body) <= 128 then
          perform body::json;
          its_kind := 'i';
        elsif left(body, 1) = '[' then
          elements := array(select e.value::text from json_array_elements(body::json) e);
          its_kind := 'l';
        elsif starts_with(body, snapshot || '[') then
          elements := array(select e.value::text from json_array_elements(
            substr(body, char_length(snapshot) + 1, char_length(body) - char_length(snapshot) - 1)::json) e);
          its_kind := 'd';
        end if;
      -- no UTF-8, no JSON, or nested deeper than the database reads
      exception when data_exception or program_limit_exceeded then
        its_kind := 'v';
      end;
    end if;
    if its_kind in ('l', 'd') then
      its_root := pg_temp.adopt_list(p_user, v.thread_id, elements);
    elsif its_kind = 'v' then
      its_root := encode(substr(sha256('\\x76616c756500'::bytea || convert_to(v.type, 'UTF8') || '\\x00'::bytea || v.blob),
                                1, 16), 'hex')::uuid;
      insert into ${t.checkpointBlobs} (user_id, thread_id, hash, type, codec, data)
      values (p_user, v.thread_id, its_root, v.type, case when body is null then 1 else 0 end, v.blob)
          on conflict do nothing;
    end if;
    update pg_temp.adopt_value a
       set kind = its_kind, root = its_root, inline = case when its_kind = 'i' then body end
     where a.n = v.n;
  end loop;
  insert into ${t.checkpointBlobs} (user_id, thread_id, hash, type, codec, data)
  select p_user, p.thread_id, p.hash, p.type, 0, p.data from pg_temp.adopt_part p
      on conflict do nothing;
  truncate pg_temp.adopt_part;
end
$function$`
