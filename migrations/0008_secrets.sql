-- Provider keys and named variables of users, each value encrypted.
-- The runner writes the name of the schema that holds Threadbase's tables where :"schema" stands.
--
-- A token is Fernet's (github.com/fernet/spec), as Python's `cryptography` writes it: rows of another application can be
-- moved over as they are. key_id names the key of ENCRYPTION_KEY that encrypted it: the first 16 hexadecimal digits of
-- the key's SHA-256. Null, in rows that were moved over: any key may open it.

-- up

-- A user may have keys without a row in users: single-user mode and the library need none.
create table :"schema".user_api_keys (
  user_id    text collate "C" not null,
  -- whose API it opens: openai, anthropic, …
  provider   text collate "C" not null check (provider ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
  token      text not null check (token <> ''),
  key_id     text collate "C",
  created_at timestamptz(3) not null default now(),
  updated_at timestamptz(3) not null default now(),
  primary key (user_id, provider)
);

create table :"schema".variables (
  user_id        text collate "C" not null,
  id             uuid not null default gen_random_uuid(),
  name           text collate "C" not null check (char_length(name) between 1 and 255),
  -- the value of a credential is never shown, that of a generic one is
  type           text not null check (type in ('credential', 'generic')),
  token          text not null check (token <> ''),
  key_id         text collate "C",
  -- names of the component fields that it fills unless they say otherwise
  default_fields text[] not null default '{}',
  created_at     timestamptz(3) not null default now(),
  updated_at     timestamptz(3) not null default now(),
  primary key (user_id, id),
  unique (user_id, name)
);

-- what is encrypted cannot be compressed
alter table :"schema".user_api_keys alter column token set storage external;
alter table :"schema".variables alter column token set storage external;

alter table :"schema".user_api_keys enable row level security;
alter table :"schema".variables enable row level security;

create policy own_rows on :"schema".user_api_keys
  using (user_id = current_setting('threadbase.user_id', true))
  with check (user_id = current_setting('threadbase.user_id', true));
create policy own_rows on :"schema".variables
  using (user_id = current_setting('threadbase.user_id', true))
  with check (user_id = current_setting('threadbase.user_id', true));

-- down

drop table :"schema".variables;
drop table :"schema".user_api_keys;
