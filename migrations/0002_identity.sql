-- Accounts, API keys, sign-ins and the audit log.
-- The runner writes the name of the schema that holds Threadbase's tables where :"schema" stands.

-- up

-- The tenants themselves: id is what user_id is elsewhere. A UUID for accounts made here, the subject for users of an
-- external provider. Rows of users are kept without a row here too: single-user mode and the library need none.
create table :"schema".users (
  id            text collate "C" not null check (char_length(id) between 1 and 255),
  -- who vouches for the user: 'local' is this installation, by password
  provider      text not null check (provider in ('local', 'jwt', 'proxy')),
  -- in lower case and without @, so that it is never mistaken for somebody's address
  username      text collate "C" check (username = lower(username) and username !~ '[@[:space:]]'
                                        and char_length(username) between 1 and 255),
  email         text collate "C" check (char_length(email) <= 255),
  name          text check (char_length(name) <= 255),
  profile_image text check (char_length(profile_image) <= 512),
  -- bcrypt; null for users who cannot sign in here
  password_hash text,
  is_active     boolean not null default true,
  is_superuser  boolean not null default false,
  created_at    timestamptz(3) not null default now(),
  updated_at    timestamptz(3) not null default now(),
  last_login_at timestamptz(3),
  primary key (id)
);

-- What one signs in with is unique among those who sign in here; an external provider may repeat an address.
create unique index users_by_username on :"schema".users (username) where provider = 'local';
create unique index users_by_email on :"schema".users (email) where provider = 'local';
create index users_by_creation on :"schema".users (created_at desc, id desc);

create table :"schema".api_keys (
  user_id      text collate "C" not null,
  id           uuid not null,
  name         text not null check (char_length(name) between 1 and 255),
  -- the beginning of the key, to tell keys from each other
  prefix       text not null,
  -- SHA-256; the key has 256 random bits, so a slow hash would protect nothing
  key_hash     bytea not null check (octet_length(key_hash) = 32),
  scopes       text[] not null check (cardinality(scopes) > 0),
  expires_at   timestamptz(3),
  revoked_at   timestamptz(3),
  -- written together every few seconds, not with each request
  last_used_at timestamptz(3),
  total_uses   bigint not null default 0,
  created_at   timestamptz(3) not null default now(),
  primary key (user_id, id),
  foreign key (user_id) references :"schema".users (id) on delete cascade
);

-- Not unique: the rule that user_id leads every unique index stands, and equal hashes do not happen.
create index api_keys_by_hash on :"schema".api_keys using hash (key_hash);

-- A sign-in and the refresh tokens that follow from it: its family.
create table :"schema".sessions (
  user_id      text collate "C" not null,
  id           uuid not null,
  -- of the one refresh token that is good; an older one is a stolen or repeated one
  generation   integer not null default 1,
  created_at   timestamptz(3) not null default now(),
  refreshed_at timestamptz(3) not null default now(),
  expires_at   timestamptz(3) not null,
  revoked_at   timestamptz(3),
  primary key (user_id, id),
  foreign key (user_id) references :"schema".users (id) on delete cascade
);

-- Who did what to which record; never its contents. There is no foreign key: what was done outlives who did it.
create table :"schema".audit_log (
  -- whose account or data it is about
  user_id    text collate "C" not null,
  -- UUID version 7: in order of time
  id         uuid not null,
  at         timestamptz(3) not null default now(),
  actor_id   text collate "C" not null,
  -- how the actor was known: session, key, token, proxy, cli
  via        text not null,
  action     text not null,
  -- the record, such as `api_key 0198…` or the path that was read
  target     text,
  address    text,
  request_id text,
  primary key (user_id, id)
);

create index audit_log_by_time on :"schema".audit_log (id desc);

alter table :"schema".users enable row level security;
alter table :"schema".api_keys enable row level security;
alter table :"schema".sessions enable row level security;
alter table :"schema".audit_log enable row level security;

create policy own_rows on :"schema".users for select
  using (id = current_setting('threadbase.user_id', true));
create policy own_rows on :"schema".api_keys
  using (user_id = current_setting('threadbase.user_id', true))
  with check (user_id = current_setting('threadbase.user_id', true));
create policy own_rows on :"schema".sessions for select
  using (user_id = current_setting('threadbase.user_id', true));
-- read only: nobody but the owner of the tables writes it
create policy own_rows on :"schema".audit_log for select
  using (user_id = current_setting('threadbase.user_id', true));

-- down

drop table :"schema".audit_log;
drop table :"schema".sessions;
drop table :"schema".api_keys;
drop table :"schema".users;
