-- Search by words and by meaning, results of sessions, and the erasure of users.
-- The runner writes the name of the schema that holds Threadbase's tables where :"schema" stands.

-- up

-- How words are taken from texts. SEARCH_LANGUAGE replaces this function; rows that were stored before keep the words of
-- their language until they are made anew. It and words_of, which calls it, are stable and not immutable: the plans of
-- open connections have them inside, and only so they are made anew when it is replaced.
create function :"schema".search_language() returns regconfig
language sql stable parallel safe
return 'pg_catalog.english'::regconfig;

-- The languages that rows may have their words of.
create table :"schema".search_languages (
  language  text primary key,
  -- when it was chosen last
  chosen_at timestamptz not null default clock_timestamp()
);
insert into :"schema".search_languages (language) values ('pg_catalog.english');

-- The words of a text, and with them whose it is: one lookup in the index leads to those of one user who has them. No
-- word of a text begins with U+0001. A tsvector holds a megabyte at most, which a longer text could exceed: what is
-- beyond is not found by its words.
create function :"schema".words_of(p_user_id text, p_text text) returns tsvector
language sql stable parallel safe
return array_to_tsvector(array[chr(1) || p_user_id]) || to_tsvector(:"schema".search_language(),
  left(p_text, case when octet_length(p_text) = char_length(p_text) then 200000 else 50000 end));

-- What of a message is searched: what people read of it, the name of its tool and what that answered. The answer is
-- JSON as it is written, without its escapes.
create function :"schema".message_text(p_text text, p_content json, p_tool_name text, p_tool_output json) returns text
language sql stable parallel safe
return concat_ws(' ', coalesce(p_text, p_content #>> '{}'), p_tool_name,
                 regexp_replace(left(p_tool_output::text, 200000), '\\(u[0-9a-fA-F]{4}|.)', ' ', 'g'));

alter table :"schema".messages
  -- of message_text; null only for a moment, before a trigger fills it
  add column words tsvector,
  -- what made the embedding, or found nothing to embed; null while it has not come to it. The column `embedding
  -- vector(384)` is added when Threadbase opens a database that has the extension `vector`.
  add column embedding_model text collate "C";

create function :"schema".set_message_words() returns trigger
language plpgsql as $function$
begin
  new.words := :"schema".words_of(
    new.user_id, :"schema".message_text(new.text, new.content, new.tool_name, new.tool_output));
  return new;
end
$function$;

create trigger set_words before insert on :"schema".messages
  for each row when (new.words is null) execute function :"schema".set_message_words();

update :"schema".messages
   set words = :"schema".words_of(user_id, :"schema".message_text(text, content, tool_name, tool_output));

create index messages_by_words on :"schema".messages using gin (words);
-- what waits for its embedding, newest last; and after a change of the model, what has that of another
create index messages_by_embedding_model on :"schema".messages (embedding_model, id);

-- Who is at work on the embedding of which row, so that no two processes do it twice.
create table :"schema".embedding_claims (
  user_id text collate "C" not null,
  -- of a message, or of the session of a result
  id      uuid not null,
  holder  uuid not null,
  until   timestamptz(3) not null,
  primary key (user_id, id)
);

-- Which models came into use when. A process replaces embeddings of models that came before its own, and leaves those
-- of later ones alone, while servers change over one after the other.
create table :"schema".embedding_models (
  model     text collate "C" primary key,
  chosen_at timestamptz not null default clock_timestamp(),
  -- the columns went away with its embeddings, and rows still say that they have them
  lost      boolean not null default false
);

-- What a session of kind chain_analysis came to.
create table :"schema".chain_analysis_results (
  user_id          text collate "C" not null,
  session_id       uuid not null,
  vulnerabilities  jsonb not null default '[]' check (jsonb_typeof(vulnerabilities) = 'array'),
  chain_links      jsonb not null default '[]' check (jsonb_typeof(chain_links) = 'array'),
  problem_behavior text,
  prompting_event  text,
  consequences     text,
  solutions        jsonb not null default '[]' check (jsonb_typeof(solutions) = 'array'),
  summary          text,
  version          integer not null default 1 check (version >= 1),
  -- all of the above as people read it, for search
  text             text not null,
  words            tsvector,
  embedding_model  text collate "C",
  created_at       timestamptz(3) not null default now(),
  updated_at       timestamptz(3) not null default now(),
  primary key (user_id, session_id),
  foreign key (user_id, session_id) references :"schema".threads (user_id, id) on delete cascade
);

create function :"schema".set_analysis_words() returns trigger
language plpgsql as $function$
begin
  new.words := :"schema".words_of(new.user_id, new.text);
  -- its embedding is that of another text
  if tg_op = 'UPDATE' and new.text <> old.text then
    new.embedding_model := null;
  end if;
  return new;
end
$function$;

create trigger set_words before insert or update of text on :"schema".chain_analysis_results
  for each row execute function :"schema".set_analysis_words();

create index chain_analysis_results_by_words on :"schema".chain_analysis_results using gin (words);
create index chain_analysis_results_by_embedding_model
  on :"schema".chain_analysis_results (embedding_model, session_id);

-- What a result was before it was changed. When a result is deleted, these go with it but for one row without a
-- result, which keeps the last version: a number that was given out never means other content.
create table :"schema".chain_analysis_versions (
  user_id     text collate "C" not null,
  session_id  uuid not null,
  version     integer not null check (version >= 1),
  -- the fields of the result; null where it was deleted
  result      jsonb check (jsonb_typeof(result) = 'object'),
  -- since when it said so
  written_at  timestamptz(3) not null,
  replaced_at timestamptz(3) not null default now(),
  primary key (user_id, session_id, version),
  foreign key (user_id, session_id) references :"schema".threads (user_id, id) on delete cascade
);

create index threads_sessions on :"schema".threads (user_id, created_at desc, id desc) where kind = 'chain_analysis';

-- Users whose data was erased: work of theirs that is still running brings no row back.
create table :"schema".erased_users (
  user_id     text collate "C" not null,
  erased_at   timestamptz(3) not null default now(),
  -- null while rows or bytes are left
  finished_at timestamptz(3),
  primary key (user_id)
);

-- Who erases takes the same lock alone, after the tombstone: either the row is there by then, and is removed, or it is
-- refused. Tables have this trigger whose rows need no row of another table that has it, and artifacts, whose bytes
-- would stay when their thread goes. It looks once a transaction: the lock
-- is held until that ends, and the setting says so; a savepoint that is rolled back takes both back.
create function :"schema".refuse_erased() returns trigger
language plpgsql as $function$
declare
  v_user_id text;
  -- expressions and not statements, which take several times as long
  v_done    text;
begin
  if tg_table_name = 'users' then
    v_user_id := new.id;
  else
    v_user_id := new.user_id;
  end if;
  v_done := pg_advisory_xact_lock_shared(hashtextextended(v_user_id, 20101))::text;
  -- behind the lock, so that it sees what was committed until then
  if exists (select from :"schema".erased_users e where e.user_id = v_user_id) then
    if tg_nargs > 0 then
      return null;
    end if;
    raise exception 'the data of this user was erased' using errcode = 'TB403';
  end if;
  v_done := set_config('threadbase.stored_for', v_user_id, true);
  return new;
end
$function$;

create trigger refuse_erased before insert on :"schema".users
  for each row when (new.id is distinct from current_setting('threadbase.stored_for', true))
  execute function :"schema".refuse_erased();

do $$
declare
  name text;
begin
  foreach name in array array['api_keys', 'sessions', 'threads', 'checkpoints', 'checkpoint_blobs', 'checkpoint_writes',
                              'checkpoint_tombstones', 'store', 'artifacts', 'files', 'uploads', 'user_api_keys',
                              'variables', 'usage'] loop
    execute format('create trigger refuse_erased before insert on :"schema".%I
                      for each row when (new.user_id is distinct from current_setting(''threadbase.stored_for'', true))
                      execute function :"schema".refuse_erased()', name);
  end loop;
end $$;
-- claims are made for many users at once: those of an erased one are left out, and the others made
create trigger refuse_erased before insert on :"schema".embedding_claims
  for each row when (new.user_id is distinct from current_setting('threadbase.stored_for', true))
  execute function :"schema".refuse_erased('leave out');

-- What was done stays written down, whoever asks. An operator who must remove lines says so to the database:
-- alter table … disable trigger keep_lines.
create function :"schema".keep_audit_lines() returns trigger
language plpgsql as $function$
begin
  raise exception 'the audit log is only ever added to' using errcode = 'insufficient_privilege';
end
$function$;

create trigger keep_lines before update or delete on :"schema".audit_log
  for each row execute function :"schema".keep_audit_lines();
create trigger keep_all_lines before truncate on :"schema".audit_log
  for each statement execute function :"schema".keep_audit_lines();

alter table :"schema".embedding_claims enable row level security;
-- of the system alone: without a policy nobody else sees a row
alter table :"schema".search_languages enable row level security;
alter table :"schema".embedding_models enable row level security;
alter table :"schema".chain_analysis_results enable row level security;
alter table :"schema".chain_analysis_versions enable row level security;
alter table :"schema".erased_users enable row level security;

create policy own_rows on :"schema".embedding_claims
  using (user_id = current_setting('threadbase.user_id', true))
  with check (user_id = current_setting('threadbase.user_id', true));
create policy own_rows on :"schema".chain_analysis_results
  using (user_id = current_setting('threadbase.user_id', true))
  with check (user_id = current_setting('threadbase.user_id', true));
create policy own_rows on :"schema".chain_analysis_versions
  using (user_id = current_setting('threadbase.user_id', true))
  with check (user_id = current_setting('threadbase.user_id', true));
-- read only: nobody lets themselves in again
create policy own_rows on :"schema".erased_users for select
  using (user_id = current_setting('threadbase.user_id', true));
-- whoever stores rows looks here, with rights of their own
grant select on :"schema".erased_users to public;

-- down

drop trigger keep_all_lines on :"schema".audit_log;
drop trigger keep_lines on :"schema".audit_log;
drop function :"schema".keep_audit_lines();
do $$
declare
  name text;
begin
  foreach name in array array['users', 'api_keys', 'sessions', 'threads', 'checkpoints', 'checkpoint_blobs',
                              'checkpoint_writes', 'checkpoint_tombstones', 'store', 'artifacts', 'files',
                              'uploads', 'user_api_keys', 'variables', 'usage'] loop
    execute format('drop trigger refuse_erased on :"schema".%I', name);
  end loop;
end $$;
drop table :"schema".embedding_models;
drop table :"schema".embedding_claims;
drop function :"schema".refuse_erased();
drop table :"schema".erased_users;
drop index :"schema".threads_sessions;
drop table :"schema".chain_analysis_versions;
drop table :"schema".chain_analysis_results;
drop function :"schema".set_analysis_words();
drop trigger set_words on :"schema".messages;
drop function :"schema".set_message_words();
drop index :"schema".messages_by_embedding_model;
drop index :"schema".messages_by_words;
alter table :"schema".messages drop column if exists embedding, drop column embedding_model, drop column words;
drop function :"schema".message_text(text, json, text, json);
drop function :"schema".words_of(text, text);
drop function :"schema".search_language();
drop table :"schema".search_languages;
