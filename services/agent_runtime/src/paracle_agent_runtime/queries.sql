-- name: beat
insert into workers (id, seen_at, report, at_work) values ($1, now(), $2::json, $3::text[])
on conflict (id) do update set seen_at = now(), report = excluded.report, at_work = excluded.at_work

-- name: at_work_elsewhere
-- Those of $2 that live workers (seen within the lease, $3) but $1 say they have in hand.
select distinct one from workers w cross join lateral unnest(w.at_work) as one
 where w.id <> $1 and w.seen_at > now() - $3::interval and one = any($2::text[])

-- name: live_workers
-- Those seen within the lease ($1).
select id, seen_at, report::text from workers where seen_at > now() - $1::interval and report is not null order by id

-- name: pool_drains
select pool, since, principal, reason from pool_drains where since is not null

-- name: drain_pool
insert into pool_drains as d (pool, number, since, principal, reason) values ($1, 1, $2, $3, $4)
on conflict (pool) do update
   set number = d.number + 1, since = excluded.since, principal = excluded.principal, reason = excluded.reason
 where d.since is null
returning number

-- name: resume_pool
update pool_drains set number = number + 1, since = null where pool = $1 and since is not null
returning number

-- name: pool_number
select number from pool_drains where pool = $1

-- name: claim_task
-- A task goes to who asks unless another worker has it and was seen within the lease ($3).
update tasks t set owner = $2
 where t.id = $1
   and (t.owner is null or t.owner = $2
        or not exists (select from workers w where w.id = t.owner and w.seen_at > now() - $3::interval))
returning t.id

-- name: release_tasks
update tasks set owner = null where id = any($1::text[]) and owner = $2

-- name: leave
-- Those that were killed could not do this for themselves.
delete from workers where id = $1 or seen_at < now() - interval '1 day'

-- name: attempts_before
select id from tasks where tenant = $1 and run_id = $2 and step = $3 and attempt < $4 order by attempt

-- name: drop_tasks
-- Those of the runs $2 of tenant $1, with their histories and effects. A task that has not ended is somebody's, and stays.
with gone as (
    delete from tasks where tenant = $1 and run_id = any($2::text[]) and finished_at is not null returning id
), told as (
    delete from task_history where id in (select id from gone)
), aside as (
    delete from turns_aside where tenant = $1 and run_id = any($2::text[])
), turns as (
    update session_turns set ended_at = now() where task_id in (select id from gone) and ended_at is null
), known as (
    delete from effects where task_id in (select id from gone)
)
select count(*) from gone

-- name: enter_effects
-- A later attempt knows better than an earlier one. What people found out is void once the tool is called again.
insert into effects as e (tenant, key, run_id, step, attempt, task_id, call_id, seq, sent, scope, tool, revision, effect,
                          arguments_digest, state, reason, called, probe, probing, intended_at, changed_at)
select g.tenant, g.key, g.run_id, g.step, g.attempt, g.task_id, g.call_id, g.seq, g.sent, g.scope, g.tool, g.revision,
       g.effect, g.arguments_digest, g.state, g.reason::json, g.called, g.probe::json, g.probing,
       g.at, g.at
  from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::int[], $6::text[], $7::text[], $8::int[],
              $9::boolean[], $10::text[], $11::text[], $12::int[], $13::text[], $14::text[], $15::text[], $16::text[],
              $17::text[], $18::text[], $19::boolean[], $20::timestamptz[])
       as g(tenant, key, run_id, step, attempt, task_id, call_id, seq, sent, scope, tool, revision, effect,
            arguments_digest, state, reason, called, probe, probing, at)
 order by g.tenant, g.key
    on conflict (tenant, key) do update
   set attempt = excluded.attempt, task_id = excluded.task_id, call_id = excluded.call_id, seq = excluded.seq,
       sent = excluded.sent, revision = excluded.revision, reason = excluded.reason, called = excluded.called,
       probe = excluded.probe, probing = excluded.probing, changed_at = excluded.changed_at,
       state = case when excluded.state = 'in_doubt' and not excluded.sent and e.resolution is not null then 'resolved'
                    else excluded.state end,
       resolution = case when excluded.sent then null else e.resolution end
 where (e.attempt, e.seq) < (excluded.attempt, excluded.seq)

-- name: get_effect
select key, state, effect, tool, revision, run_id, step, attempt, task_id, call_id, scope, arguments_digest,
       reason::text, called, probe::text, intended_at, changed_at, resolution::text, resolved
  from effects where tenant = $1 and key = $2

-- name: list_effects
-- $2 state, $3 tool, $4 run, $5 and $6 when they were intended; $7 and $8: the place of the last one of the page before.
select key, state, effect, tool, revision, run_id, step, attempt, task_id, call_id, scope, arguments_digest,
       reason::text, called, probe::text, intended_at, changed_at, resolution::text, resolved
  from effects
 where tenant = $1
   and ($2::text is null or state = $2)
   and ($3::text is null or tool = $3)
   and ($4::text is null or run_id = $4)
   and ($5::timestamptz is null or intended_at >= $5)
   and ($6::timestamptz is null or intended_at < $6)
   and ($7::timestamptz is null or (intended_at, key) < ($7, $8::text))
 order by intended_at desc, key desc
 limit $9

-- name: resolve_effect
-- Not while a probe is under way: its answer would be acted on, whatever somebody says meanwhile.
update effects set state = 'resolved', resolution = $3::json, resolved = resolved + 1, changed_at = $4
 where tenant = $1 and key = $2 and state = 'in_doubt' and not probing
returning resolved

-- name: effect_resolutions
select key, resolution::text from effects where tenant = $1 and key = any($2::text[]) and state = 'resolved'

-- name: doubtful_effects
select key, state, effect, tool, revision, run_id, step, attempt, task_id, call_id, scope, arguments_digest,
       reason::text, called, probe::text, intended_at, changed_at, resolution::text, resolved
  from effects where tenant = $1 and run_id = $2 and step = $3 and state in ('in_doubt', 'resolved')

-- name: known_turn
select turn from session_turns where task_id = $1

-- name: enter_session
-- Numbers are given out under the lock of the session's row, so a lower one is visible to whoever has a higher one.
with session as (
    insert into sessions (tenant, id, turns) values ($1, $2, 1)
    on conflict (tenant, id) do update set turns = sessions.turns + 1
    returning turns
)
insert into session_turns (task_id, tenant, session_id, turn, run_id)
select $3, $1, $2, turns, $4 from session
on conflict (task_id) do nothing
returning turn

-- name: session_lacks
-- The last of the runs $3 that has neither a turn in the session nor a task that ended without one. If none has a turn,
-- and there may be others before them since they are $4, the first.
with one as (
    select o.run_id, o.place,
           exists (select from session_turns t where t.tenant = $1 and t.session_id = $2 and t.run_id = o.run_id) as entered
      from unnest($3::text[]) with ordinality as o(run_id, place)
)
select run_id from one
 where not entered and not exists (
    select from tasks k where k.tenant = $1 and k.run_id = one.run_id and k.finished_at is not null
 ) or place = 1 and (select count(*) = $4 and not bool_or(entered) from one)
 order by place desc limit 1

-- name: set_aside
-- Not if its task was cancelled: nobody would ever hand that out again, so it would stay here.
insert into turns_aside as a (task_id, tenant, session_id, run_id, turn, after_run, pool, headers, task)
select $1, $2, $3, $4, $5::int, $6, $7, $8::json, $9::json
 where not exists (select from tasks k where k.id = $1 and k.finished_at is not null)
on conflict (task_id) do update set turn = excluded.turn, after_run = excluded.after_run, called = false
 where a.called or (a.turn, a.after_run) is distinct from (excluded.turn, excluded.after_run)

-- name: release_turns
-- Task $2 of run $3 has entered its session, or it ended: who need not wait any longer for that?
with over as (
    delete from turns_aside a
     where a.tenant = $1 and a.task_id = $2
       and (a.after_run is not null or exists (select from tasks k where k.id = a.task_id)
            or exists (select from session_turns t where t.task_id = a.task_id and t.ended_at is not null))
), first as (
    select a.task_id, a.session_id, a.turn
      from session_turns mine
      join turns_aside a on a.tenant = mine.tenant and a.session_id = mine.session_id and a.turn is not null
      join session_turns t on t.task_id = a.task_id and t.ended_at is null
     where mine.task_id = $2 and mine.tenant = $1 and a.task_id <> $2
       and not exists (select from tasks k where k.id = a.task_id)
     order by a.turn limit 1
), free as (
    select f.task_id from first f
     where not exists (
        select from session_turns t left join tasks k on k.id = t.task_id
         where t.tenant = $1 and t.session_id = f.session_id and t.turn < f.turn and t.ended_at is null
           and coalesce(k.status, '') not in ('failed', 'cancelled', 'timed_out')
     )
    union
    select task_id from turns_aside where tenant = $1 and after_run = $3 and task_id <> $2
), called as (
    update turns_aside a set called = true from free where a.task_id = free.task_id and not a.called
)
select a.pool, a.headers::text, a.task::text, a.turn from turns_aside a join free using (task_id)

-- name: turns_stalled
-- Those behind a run that is not set aside itself, and not called yet: some $1 of them.
select a.session_id, a.after_run, a.tenant, a.pool, a.headers::text, a.task::text, a.turn from turns_aside a
 where a.after_run is not null and not a.called
   and not exists (select from turns_aside b where b.tenant = a.tenant and b.run_id = a.after_run)
 order by random() limit $1

-- name: turn_called
update turns_aside set called = true where task_id = $1

-- name: turns_aside
-- How many wait in each pool: of tenant $1, or of all. One that was called is in the queue, or in hand; one that has begun,
-- or was cancelled, is there until its end.
select a.pool, count(*) from turns_aside a
 where ($1::text is null or a.tenant = $1) and not a.called and not exists (select from tasks k where k.id = a.task_id)
 group by a.pool

-- name: turn_waits
-- A task that completed has ended its turn once its messages are kept; one that ended otherwise adds none.
select exists (
    select from session_turns t left join tasks k on k.id = t.task_id
     where t.tenant = $1 and t.session_id = $2 and t.turn < $3 and t.ended_at is null
       and coalesce(k.status, '') not in ('failed', 'cancelled', 'timed_out')
)

-- name: recap_before
-- The newest summary that a turn before number $3 made.
select made_in, from_turn as turn, question, resume, summary, model, made_at from session_recaps
 where tenant = $1 and session_id = $2 and made_in < $3 order by made_in desc limit 1

-- name: said_before
select turn, messages, tokens from session_turns
 where tenant = $1 and session_id = $2 and turn < $3 and turn >= $4 and ended_at is not null
 order by turn

-- name: keep_recap
-- Only while the turn is under way: whoever comes after one that was stopped has begun with what was there, and would
-- begin with something else when it is resumed.
insert into session_recaps (tenant, session_id, made_in, from_turn, question, resume, summary, model)
select t.tenant, t.session_id, t.turn, $3::int, $4::int, $5::int, $6::text, $7::text
  from session_turns t join tasks k on k.id = t.task_id
 where t.task_id = $1 and t.tenant = $2 and t.ended_at is null and k.status = 'running'
   for share of k
on conflict (tenant, session_id, made_in) do update
   set from_turn = excluded.from_turn, question = excluded.question, resume = excluded.resume,
       summary = excluded.summary, model = excluded.model, made_at = excluded.made_at

-- name: end_turn
with ended as (
    update session_turns set ended_at = now(), messages = $2, tokens = $4
     where task_id = $1 and tenant = $3 and ended_at is null
    returning tenant, session_id, turn
)
insert into session_recaps (tenant, session_id, made_in, from_turn, question, resume, summary, model)
select tenant, session_id, turn, $5::int, $6::int, $7::int, $8::text, $9::text from ended where $5::int is not null
on conflict (tenant, session_id, made_in) do update
   set from_turn = excluded.from_turn, question = excluded.question, resume = excluded.resume,
       summary = excluded.summary, model = excluded.model, made_at = excluded.made_at

-- name: list_sessions
select s.id, s.created_at, t.turns, t.open, t.asked_at
  from sessions s
 cross join lateral (
    select count(*) as turns, max(asked_at) as asked_at,
           count(*) filter (where t.ended_at is null
                              and coalesce(k.status, '') not in ('failed', 'cancelled', 'timed_out')) as open
      from session_turns t left join tasks k on k.id = t.task_id
     where t.tenant = s.tenant and t.session_id = s.id
 ) t
 where s.tenant = $1 and ($2::text is null or s.id < $2) and ($3::text is null or s.id = $3) and t.turns > 0
 order by s.id desc limit $4

-- name: session_turns
-- Who stops a task does not end its turn: that it has ended shows by the task.
select t.turn, t.task_id, t.run_id, t.asked_at, t.messages,
       coalesce(t.ended_at, case when k.status in ('failed', 'cancelled', 'timed_out') then k.finished_at end) as ended_at
  from session_turns t left join tasks k on k.id = t.task_id
 where t.tenant = $1 and t.session_id = $2 and t.turn > $3 order by t.turn limit $4

-- name: delete_session
delete from sessions s
 where s.tenant = $1 and s.id = $2 and not exists (
    select from session_turns t left join tasks k on k.id = t.task_id
     where t.tenant = s.tenant and t.session_id = s.id and t.ended_at is null
       and coalesce(k.status, '') not in ('failed', 'cancelled', 'timed_out')
 )
returning s.id
