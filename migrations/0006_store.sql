-- LangGraph's long-term memory: items under namespaces, searched by value, by words and by meaning.
-- The runner writes the name of the schema that holds Threadbase's tables where :"schema" stands.

-- up

create table :"schema".store (
  user_id    text collate "C" not null,
  -- the labels of the namespace, each behind an escape for U+0001 and U+0002 (which is U+0002) and with U+0001 at its
  -- end: paths sort as namespaces do, label by label, and the path of a prefix is a prefix of the path. Row level
  -- security lets texts be looked up in an index, and arrays not.
  path       text collate "C" not null,
  key        text collate "C" not null,
  namespace  text[] collate "C" not null,
  value      jsonb not null,
  -- what a text search finds it by; null where vectors are in use, and for what is not to be found
  words      tsvector,
  -- how long it lives after it was stored or, when reads refresh it, read; null: for ever
  ttl_s      double precision,
  expires_at timestamptz(3),
  created_at timestamptz(3) not null default now(),
  updated_at timestamptz(3) not null default now(),
  primary key (user_id, path, key),
  check ((ttl_s is null) = (expires_at is null))
);

create index store_by_words on :"schema".store using gin (words) where words is not null;
create index store_by_expiry on :"schema".store (expires_at) where expires_at is not null;

-- One for each text of an item that has an embedding. Plain numbers, so that the table is there without the extension
-- `vector`; an index over them, cast to its type, is made for each number of dimensions when the first store uses it.
create table :"schema".store_vectors (
  user_id   text collate "C" not null,
  path      text collate "C" not null,
  key       text collate "C" not null,
  n         integer not null,
  dims      integer not null,
  embedding real[] not null,
  primary key (user_id, path, key, n),
  foreign key (user_id, path, key) references :"schema".store (user_id, path, key) on delete cascade,
  check (cardinality(embedding) = dims)
);

alter table :"schema".store enable row level security;
alter table :"schema".store_vectors enable row level security;

create policy own_rows on :"schema".store
  using (user_id = current_setting('threadbase.user_id', true))
  with check (user_id = current_setting('threadbase.user_id', true));
create policy own_rows on :"schema".store_vectors
  using (user_id = current_setting('threadbase.user_id', true))
  with check (user_id = current_setting('threadbase.user_id', true));

-- Stores and removes items, each at most once, in one statement: those whose value is null are removed.
create function :"schema".put_store_items(
  p_user_id text, p_paths text[], p_keys text[],
  -- as JSON: arrays of labels, objects
  p_namespaces text[], p_values text[],
  p_words text[], p_ttls double precision[],
  -- the place of each vector's item in the arrays above, and the numbers of all vectors one behind the other
  v_items int[], v_dims int, v_numbers real[]
) returns void
language plpgsql volatile
-- each lookup is by key; tables may be new and without statistics
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
set jit = off
as $function$
begin
  -- Items that are written at the same time wait here, in one order, so that no two statements wait for each other. An
  -- item's lock is one of a few of its user: a large batch needs no more. What another one stored meanwhile is seen
  -- below, where each statement looks anew.
  perform pg_advisory_xact_lock(l.lock)
     from (select distinct (hashtextextended(p_user_id, 20042) & ~63::bigint)
                           | (hashtextextended(i.path || i.key, 20042) & 63) as lock
             from unnest(p_paths, p_keys) i (path, key) order by 1) l;

  delete from :"schema".store s
   using unnest(p_paths, p_keys, p_values) i (path, key, value)
   where i.value is null and s.user_id = p_user_id and s.path = i.path and s.key = i.key;

  insert into :"schema".store as s (user_id, path, key, namespace, value, words, ttl_s, expires_at)
  select p_user_id, i.path, i.key, array(select json_array_elements_text(i.namespace::json)), i.value::jsonb,
         to_tsvector('simple'::regconfig, i.words), i.ttl_s, now() + i.ttl_s * interval '1 second'
    from unnest(p_paths, p_keys, p_namespaces, p_values, p_words, p_ttls) i (path, key, namespace, value, words, ttl_s)
   where i.value is not null
   order by i.path, i.key
      on conflict (user_id, path, key) do update
         set value = excluded.value, words = excluded.words, ttl_s = excluded.ttl_s, expires_at = excluded.expires_at,
             updated_at = excluded.updated_at,
             -- one that had expired was gone
             created_at = case when s.expires_at <= now() then excluded.created_at else s.created_at end;

  delete from :"schema".store_vectors v
   using unnest(p_paths, p_keys) i (path, key)
   where v.user_id = p_user_id and v.path = i.path and v.key = i.key;

  insert into :"schema".store_vectors (user_id, path, key, n, dims, embedding)
  select p_user_id, p_paths[v_items[n]], p_keys[v_items[n]], n, v_dims, v_numbers[(n - 1) * v_dims + 1 : n * v_dims]
    from generate_subscripts(v_items, 1) n;
end
$function$;

-- The cosine distance as the extension `vector` has it, for where there is none.
create function :"schema".store_distance(a real[], b real[]) returns double precision
language sql immutable parallel safe
return (select 1 - sum(x::float8 * y) / nullif(sqrt(sum(x::float8 * x)) * sqrt(sum(y::float8 * y)), 0)
          from unnest(a, b) as both_of (x, y));

-- down

drop function :"schema".store_distance(real[], real[]);
drop function :"schema".put_store_items(text, text[], text[], text[], text[], text[], double precision[], int[], int, real[]);
drop table :"schema".store_vectors;
drop table :"schema".store;
