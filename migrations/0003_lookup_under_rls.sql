-- Appends are as quick under row level security as without.
--
-- A condition on a function that is not leakproof waits behind the policy's, and so cannot lead into an index:
-- with uuid_send, a role that policies bind walks through all message ids of the user. greatest() of one value is that
-- value; to the planner it is an expression all the same (see 0001 for why it must be one), and a leakproof one.
--
-- And appends are planned once a connection: for batches of a few messages the plan for these very values looks a
-- little cheaper than the general one, which is the same plan, and making it takes longer than running it.

-- up

create unique index messages_by_message_id_new on :"schema".messages (user_id, greatest(thread_id), message_id)
  where message_id is not null;
drop index :"schema".messages_by_message_id;
alter index :"schema".messages_by_message_id_new rename to messages_by_message_id;

-- append_messages as it is, with the other expression
do $$ begin
  execute regexp_replace(pg_get_functiondef(':"schema".append_messages'::regproc),
                         'uuid_send\((\w+\.thread_id)\)', 'greatest(\1)', 'g');
end $$;
alter function :"schema".append_messages set plan_cache_mode = force_generic_plan;

-- down

create unique index messages_by_message_id_old on :"schema".messages (user_id, uuid_send(thread_id), message_id)
  where message_id is not null;
drop index :"schema".messages_by_message_id;
alter index :"schema".messages_by_message_id_old rename to messages_by_message_id;

do $$ begin
  execute regexp_replace(pg_get_functiondef(':"schema".append_messages'::regproc),
                         'greatest\((\w+\.thread_id)\)', 'uuid_send(\1)', 'g');
end $$;
alter function :"schema".append_messages reset plan_cache_mode;
