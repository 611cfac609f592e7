-- Bytes that are stored once, and what users call them: artifacts of threads, files of users, uploads under way.
-- The runner writes the name of the schema that holds Threadbase's tables where :"schema" stands.

-- up

-- What the storage holds, by SHA-256, whoever it belongs to: one row however many users store the same bytes. So it has
-- no user_id; a role that policies bind sees nothing of it.
--
-- Who stores bytes touches the row first, which makes it where there is none, then puts the bytes, then names them. Who
-- collects takes away the rows that nobody names and nobody touched for a while, and notes the removal, in one
-- transaction; then removes the bytes, then the note. So a row may be without its bytes until it has a name, and no
-- longer; and bytes may be without a row, which the next collection finds.
create table :"schema".blobs (
  sha256     text collate "C" not null check (sha256 ~ '^[0-9a-f]{64}$'),
  size       bigint not null check (size >= 0),
  created_at timestamptz(3) not null default now(),
  touched_at timestamptz(3) not null default now(),
  primary key (sha256)
);

-- Bytes that are being removed: who stores the same ones waits. Not a lock that ends with a connection: what was asked of
-- the storage goes on without it. A collector that dies leaves its notes, which end by themselves; by then nothing that it
-- asked for can be under way any more. Each collector has notes of its own, so that none ends another's.
create table :"schema".blob_removals (
  sha256    text collate "C" not null,
  collector uuid not null,
  until     timestamptz(3) not null,
  primary key (sha256, collector)
);

-- True while the bytes are being removed: then ask again before putting them. Both statements see what was committed
-- before each began: the second one sees the note of whoever made the first one wait.
create function :"schema".touch_blob(p_sha256 text, p_size bigint) returns boolean
language plpgsql volatile
as $function$
begin
  -- the row need not outlive a crash without its name, and the name's commit waits for this one, too
  perform set_config('synchronous_commit', 'off', true);
  insert into :"schema".blobs (sha256, size) values (p_sha256, p_size)
  on conflict (sha256) do update set touched_at = now();
  return exists (select from :"schema".blob_removals r where r.sha256 = p_sha256 and r.until > clock_timestamp());
end
$function$;

create table :"schema".artifacts (
  user_id      text collate "C" not null,
  -- UUID version 7: in order of time
  id           uuid not null,
  thread_id    uuid not null,
  sha256       text collate "C" not null,
  -- data, never a path
  filename     text not null check (char_length(filename) between 1 and 1600),
  mime         text not null check (char_length(mime) between 1 and 255),
  size         bigint not null,
  -- of the sandbox that made it, of the graph's run, of the tool call
  session_id   text check (char_length(session_id) <= 255),
  run_id       text check (char_length(run_id) <= 255),
  tool_call_id text check (char_length(tool_call_id) <= 255),
  meta         jsonb not null default '{}',
  created_at   timestamptz(3) not null default now(),
  primary key (user_id, id),
  foreign key (user_id, thread_id) references :"schema".threads (user_id, id) on delete cascade,
  constraint artifacts_bytes foreign key (sha256) references :"schema".blobs (sha256)
);

create index artifacts_by_thread on :"schema".artifacts (user_id, thread_id, id);
create index artifacts_by_sha256 on :"schema".artifacts (sha256);

create table :"schema".files (
  user_id    text collate "C" not null,
  id         uuid not null,
  -- unique among the user's files
  name       text collate "C" not null check (char_length(name) between 1 and 1600),
  -- as it was asked for, and which of that name this is: 0, or the n of "name (n)"
  asked_name text collate "C" not null,
  n          integer not null default 0 check (n >= 0),
  sha256     text collate "C" not null,
  mime       text not null check (char_length(mime) between 1 and 255),
  size       bigint not null,
  flow_id    uuid,
  -- null: it stays
  expires_at timestamptz(3),
  meta       jsonb not null default '{}',
  created_at timestamptz(3) not null default now(),
  primary key (user_id, id),
  constraint files_bytes foreign key (sha256) references :"schema".blobs (sha256)
);

create unique index files_by_name on :"schema".files (user_id, name);
create index files_by_asked_name on :"schema".files (user_id, asked_name, n);
create index files_by_flow on :"schema".files (user_id, flow_id, id) where flow_id is not null;
create index files_by_expiry on :"schema".files (expires_at) where expires_at is not null;
create index files_by_sha256 on :"schema".files (sha256);

-- A presigned URL that was given out: where the bytes will be, what they must be, and what becomes of them.
create table :"schema".uploads (
  user_id    text collate "C" not null,
  -- also that of the artifact or file
  id         uuid not null,
  -- null: it becomes a file
  thread_id  uuid,
  object_key text not null,
  sha256     text collate "C" not null check (sha256 ~ '^[0-9a-f]{64}$'),
  size       bigint not null check (size >= 0),
  -- the fields of the artifact or file
  entry      json not null,
  -- when the bytes were found to be the promised ones; they may be in their place since, and no row name them yet
  proven_at  timestamptz(3),
  expires_at timestamptz(3) not null,
  created_at timestamptz(3) not null default now(),
  primary key (user_id, id),
  foreign key (user_id, thread_id) references :"schema".threads (user_id, id) on delete cascade
);

create index uploads_by_thread on :"schema".uploads (user_id, thread_id) where thread_id is not null;
create index uploads_by_expiry on :"schema".uploads (expires_at);

alter table :"schema".blobs enable row level security;
alter table :"schema".blob_removals enable row level security;
alter table :"schema".artifacts enable row level security;
alter table :"schema".files enable row level security;
alter table :"schema".uploads enable row level security;

create policy own_rows on :"schema".artifacts
  using (user_id = current_setting('threadbase.user_id', true))
  with check (user_id = current_setting('threadbase.user_id', true));
create policy own_rows on :"schema".files
  using (user_id = current_setting('threadbase.user_id', true))
  with check (user_id = current_setting('threadbase.user_id', true));
create policy own_rows on :"schema".uploads
  using (user_id = current_setting('threadbase.user_id', true))
  with check (user_id = current_setting('threadbase.user_id', true));

-- down

drop table :"schema".uploads;
drop table :"schema".files;
drop table :"schema".artifacts;
drop function :"schema".touch_blob(text, bigint);
drop table :"schema".blob_removals;
drop table :"schema".blobs;
