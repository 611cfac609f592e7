-- An append of one message is stored by one short statement after another.
--
-- Under row level security a statement holds the rows of one user, so that most appends are of one message, and a
-- server of many users stores as many as there are users at work. For one row the statement of append_messages takes
-- three times as long to set up as to run; this comes before it and has the same outcomes.

-- up

create function :"schema".append_lone(
  p_user_id text, p_thread_id uuid, p_id uuid, p_message_id text, p_root boolean, p_role text, p_content text,
  p_text text, p_tool_name text, p_tool_input text, p_tool_output text, p_meta text, p_digest text,
  p_created_at timestamptz, p_updated_at timestamptz
) returns table (
  n bigint, status text, id uuid, seq bigint, parent_seq bigint, parent_id uuid, meta jsonb, created_at timestamptz
)
language plpgsql volatile
as $function$
#variable_conflict use_column
declare
  v_last bigint;
  v_parent bigint;
  v_digest bytea;
begin
  n := 1;
  select th.last_seq into v_last from :"schema".threads th
   where th.user_id = p_user_id and th.id = p_thread_id for no key update;
  if not found then
    status := 'no_thread';
    id := p_id;
    created_at := coalesce(p_created_at, now())::timestamptz(3);
    return next;
    return;
  end if;

  -- a thread that never had a message is not searched
  if v_last > 0 and p_message_id is not null then
    select m.id, m.seq, m.parent_seq, m.meta, m.created_at, m.digest
      into id, seq, v_parent, meta, created_at, v_digest
      from :"schema".messages m
     where m.user_id = p_user_id and greatest(m.thread_id) = greatest(p_thread_id) and m.message_id = p_message_id
     limit 1;
    if found then
      status := case when v_digest = decode(p_digest, 'hex') then 'known' else 'conflict' end;
      parent_seq := v_parent;
      select m.id into parent_id from :"schema".messages m
       where m.user_id = p_user_id and m.thread_id = p_thread_id and m.seq >= v_parent and m.seq <= v_parent
       order by m.seq limit 1;
      return next;
      return;
    end if;
  end if;

  if not p_root and v_last > 0 then
    select m.seq, m.id into parent_seq, parent_id from :"schema".messages m
     where m.user_id = p_user_id and m.thread_id = p_thread_id order by m.seq desc limit 1;
  end if;
  status := 'new';
  id := p_id;
  seq := v_last + 1;
  created_at := coalesce(p_created_at, now())::timestamptz(3);
  insert into :"schema".messages (user_id, thread_id, seq, id, message_id, parent_seq, role, content, text,
                                  tool_name, tool_input, tool_output, meta, digest, created_at)
  values (p_user_id, p_thread_id, v_last + 1, p_id, p_message_id, parent_seq, p_role, p_content::json, p_text,
          p_tool_name, p_tool_input::json, p_tool_output::json, coalesce(p_meta::jsonb, '{}'),
          decode(p_digest, 'hex'), created_at);
  update :"schema".threads th
     set last_seq = v_last + 1,
         updated_at = greatest(th.updated_at, least(coalesce(p_updated_at, now()), now()))
   where th.user_id = p_user_id and th.id = p_thread_id;
  return next;
end
$function$;

do $$ begin
  execute regexp_replace(pg_get_functiondef(':"schema".append_messages'::regproc), '\nbegin\n', $new$
begin
  if cardinality(p_id) = 1 and p_parent_mode[1] in ('auto', 'root') then
    return query select * from :"schema".append_lone(
      p_user_id[1], p_thread_id[1], p_id[1], p_message_id[1], p_parent_mode[1] = 'root', p_role[1], p_content[1],
      p_text[1], p_tool_name[1], p_tool_input[1], p_tool_output[1], p_meta[1], p_digest[1], p_created_at[1],
      p_updated_at[1]);
    return;
  end if;

$new$);
end $$;

-- down

do $$ begin
  execute regexp_replace(pg_get_functiondef(':"schema".append_messages'::regproc),
                         '\n  if cardinality.*?end if;\n', '');
end $$;
drop function :"schema".append_lone(text, uuid, uuid, text, boolean, text, text, text, text, text, text, text, text,
  timestamptz, timestamptz);
