-- Council conversations are threads of kind council; what is beside them: the turn under way, and how much a user may ask.
-- The runner writes the name of the schema that holds Threadbase's tables where :"schema" stands.

-- up

-- An answer that is being made: what its stages have so far, so that it can go on after the process that made it ended.
create table :"schema".council_turns (
  user_id     text collate "C" not null,
  thread_id   uuid not null,
  -- who makes it, and until when nobody else may
  holder      uuid not null,
  lease_until timestamptz(3) not null,
  -- null while the question is not stored yet
  state       json,
  updated_at  timestamptz(3) not null default now(),
  primary key (user_id, thread_id),
  foreign key (user_id, thread_id) references :"schema".threads (user_id, id) on delete cascade
);

create table :"schema".usage (
  user_id            text collate "C" not null,
  tier               text collate "C" not null default 'free' check (char_length(tier) between 1 and 63),
  daily_used         integer not null default 0 check (daily_used >= 0),
  -- null: that of the tier; -1: none
  daily_limit        integer check (daily_limit >= -1),
  monthly_used       integer not null default 0 check (monthly_used >= 0),
  monthly_limit      integer check (monthly_limit >= -1),
  total_queries      bigint not null default 0 check (total_queries >= 0),
  -- the days (UTC) that the counters are of: of another day or month they count as 0
  last_reset_daily   date not null default (now() at time zone 'utc')::date,
  last_reset_monthly date not null default (now() at time zone 'utc')::date,
  -- the usage.json that it was moved from: the way back has its spelling, and all else that was in it
  file               json,
  created_at         timestamptz(3) not null default now(),
  updated_at         timestamptz(3) not null default now(),
  primary key (user_id)
);

create index threads_councils on :"schema".threads (user_id, created_at desc, id desc) where kind = 'council';
-- tokens and costs are summed from what models were asked
create index messages_with_usage on :"schema".messages (user_id, created_at) where meta ?| '{usage,usage_metadata}'::text[];

alter table :"schema".council_turns enable row level security;
alter table :"schema".usage enable row level security;

create policy own_rows on :"schema".council_turns
  using (user_id = current_setting('threadbase.user_id', true))
  with check (user_id = current_setting('threadbase.user_id', true));
-- read only: nobody raises their own limits
create policy own_rows on :"schema".usage for select
  using (user_id = current_setting('threadbase.user_id', true));

-- down

drop index :"schema".messages_with_usage;
drop index :"schema".threads_councils;
drop table :"schema".usage;
drop table :"schema".council_turns;
