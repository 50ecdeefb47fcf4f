-- name: store
-- A batch of events and what is projected from them, in one statement: one round trip and one commit.
-- $1-$11 are the columns of events; $12 is a JSON array of what events say was used.
-- Writers take turns (the lock ends with the statement), so positions become visible in their order: a reader who
-- goes on after the last position that it saw misses nothing, and the sweeper counts each event once.
-- What an event says was used counts if the event was new.
with turn as materialized (
    select pg_advisory_xact_lock(7203001)
), fresh as (
    insert into event (tenant, entity, id, first_seq, seq, type, subject, run_id, principal, time, body)
    select e.* from turn, unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::text[],
                                 $8::text[], $9::text[], $10::timestamptz[], $11::text[]) as e
    on conflict do nothing
    returning tenant, entity, id, first_seq, seq
), spent as (
    select s.*
      from json_to_recordset($12::text::json)
           as s(tenant text, task_id text, "row" bigint, run_id text, provider text, model text, agent text, step text,
                model_calls bigint, tool_calls bigint, input_tokens bigint, output_tokens bigint,
                cached_tokens bigint, reasoning_tokens bigint, cost_usd numeric)
      join fresh f on f.tenant = s.tenant and f.entity = 'task' and f.id = s.task_id and f.seq = s.row
), counted as (
    insert into usage as u (tenant, run_id, task_id, provider, model, agent, step, model_calls, tool_calls,
                            input_tokens, output_tokens, cached_tokens, reasoning_tokens, known_cost_usd, unpriced_calls)
    select tenant, run_id, task_id, provider, model, max(agent), max(step), sum(model_calls), sum(tool_calls),
           sum(input_tokens), sum(output_tokens), sum(cached_tokens), sum(reasoning_tokens),
           coalesce(sum(cost_usd), 0), count(*) filter (where cost_usd is null)
      from spent group by tenant, run_id, task_id, provider, model
    on conflict (tenant, run_id, task_id, provider, model) do update set
        model_calls = u.model_calls + excluded.model_calls,
        tool_calls = u.tool_calls + excluded.tool_calls,
        input_tokens = u.input_tokens + excluded.input_tokens,
        output_tokens = u.output_tokens + excluded.output_tokens,
        cached_tokens = u.cached_tokens + excluded.cached_tokens,
        reasoning_tokens = u.reasoning_tokens + excluded.reasoning_tokens,
        known_cost_usd = u.known_cost_usd + excluded.known_cost_usd,
        unpriced_calls = u.unpriced_calls + excluded.unpriced_calls
)
select coalesce(sum(seq - first_seq + 1), 0) from fresh

-- name: audit_of_run
select position, subject, principal, body from event
 where tenant = $1 and run_id = $2 and position >= $3 order by position limit $4

-- name: audit_of_entity
select position, subject, principal, body from event
 where tenant = $1 and entity = $2 and id = $3 and position >= $4 order by position limit $5

-- name: usage_of_run
select task_id, provider, model, agent, step, model_calls, tool_calls, input_tokens, output_tokens, cached_tokens,
       reasoning_tokens, known_cost_usd, unpriced_calls
  from usage where tenant = $1 and run_id = $2
 order by task_id, provider, model

-- name: count_new
-- Count what was stored since the last sweep into `history`. The row of `sweep` is locked, so replicas take turns.
-- $1: types of last events; $2: how long an entity must be quiet before it is looked at.
with mark as (
    select position from sweep for update
), new as (
    select e.tenant, e.entity, e.id, e.first_seq, e.seq, e.type, e.position
      from event e where e.position > (select position from mark)
), moved as (
    update sweep set position = greatest(sweep.position, (select coalesce(max(position), 0) from new))
)
insert into history as h (tenant, entity, id, stored, last_seq, closed, touched_at, check_at)
select tenant, entity, id, sum(seq - first_seq + 1), max(seq), bool_or(type = any($1::text[])), now(), now() + $2::interval
  from new group by tenant, entity, id
on conflict (tenant, entity, id) do update set
    stored = h.stored + excluded.stored,
    last_seq = greatest(h.last_seq, excluded.last_seq),
    closed = h.closed or excluded.closed,
    touched_at = excluded.touched_at,
    check_at = excluded.check_at,
    checks = 0,
    lost = false

-- name: claim_suspects
-- Histories with a gap, and runs and tasks that have been quiet without having ended: perhaps the last event never came.
-- The longer a look finds nothing the longer until the next, up to an hour. Replicas claim different ones.
-- $1: how many; $2: the first wait. `first_missing` is the first number that is not there.
update history h
   set checks = h.checks + 1, check_at = now() + least($2::interval * power(2, least(h.checks, 20)), interval '1 hour')
  from (select tenant, entity, id from history
         where check_at <= now() and not lost and (stored < last_seq or (entity in ('run', 'task') and not closed))
         order by check_at limit $1 for update skip locked) as due
 where h.tenant = due.tenant and h.entity = due.entity and h.id = due.id
returning h.tenant, h.entity, h.id, h.stored, h.last_seq, h.checks,
    (select coalesce(min(g.expected), h.last_seq + 1)
       from (select first_seq, lag(seq, 1, 0::bigint) over (order by seq) + 1 as expected from event e
              where e.tenant = h.tenant and e.entity = h.entity and e.id = h.id) as g
      where g.first_seq <> g.expected) as first_missing

-- name: expect
-- Histories that there are ($1 entity, $2 tenants, $3 ids): one of which no event has come is looked into after $4.
with absent as (
    insert into history (tenant, entity, id, stored, last_seq, closed, touched_at, check_at)
    select b.tenant, $1, b.id, 0, 0, false, now(), now() + $4::interval
      from unnest($2::text[], $3::text[]) as b(tenant, id)
     where not exists (select from event e where e.tenant = b.tenant and e.entity = $1 and e.id = b.id)
        on conflict do nothing
    returning id
)
select count(*) from absent

-- name: asked_until
select until from asked where entity = $1

-- name: note_asked
insert into asked (entity, until) values ($1, $2)
    on conflict (entity) do update set until = greatest(asked.until, excluded.until)

-- name: give_up
-- What is missing of a history ($1-$3) is lost, unless something of it has come since it was looked at ($4). One of which
-- nothing ever came is none.
with nothing as (
    delete from history where (tenant, entity, id) = ($1, $2, $3) and last_seq = 0
)
update history set lost = true where (tenant, entity, id) = ($1, $2, $3) and stored = $4 and last_seq > 0

-- name: is_lost
select lost from history where (tenant, entity, id) = ($1, $2, $3)

-- name: count_gaps
select (select coalesce(sum(last_seq - stored), 0) from history where stored < last_seq and not lost)::bigint as missing,
       (select count(*) from history where stored < last_seq and not lost) as histories,
       (select count(*) from history where lost) as lost

-- name: keep_dead_letters
-- One that was settled already may be delivered once more; it does not come back from that.
insert into dead_letter (tenant, id, at, service, code, run_id, place, told, about, headers, body)
select l.tenant, l.id, l.at, l.service, l.code, l.run_id, l.place, l.told, l.about::json, l.headers::json, l.body
  from unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::bigint[],
              $8::boolean[], $9::text[], $10::text[], $11::bytea[])
       as l(tenant, id, at, service, code, run_id, place, told, about, headers, body)
 where not exists (select from event e
                    where e.tenant = l.tenant and e.entity = 'dead_letter' and e.id = l.id and e.seq = 1)
on conflict do nothing

-- name: newest_dead_letters
-- $2-$6: the filter; $7 and $8: the place of the last one of the page before.
select about::text as about from dead_letter
 where tenant = $1
   and ($2::text is null or service = $2) and ($3::text is null or code = $3) and ($4::text is null or run_id = $4)
   and ($5::timestamptz is null or at >= $5) and ($6::timestamptz is null or at < $6)
   and ($7::timestamptz is null or (at, id) < ($7, $8::text))
 order by at desc, id desc limit $9

-- name: oldest_dead_letters
select about::text as about from dead_letter
 where tenant = $1
   and ($2::text is null or service = $2) and ($3::text is null or code = $3) and ($4::text is null or run_id = $4)
   and ($5::timestamptz is null or at >= $5) and ($6::timestamptz is null or at < $6)
   and ($7::timestamptz is null or (at, id) > ($7, $8::text))
 order by at, id limit $9

-- name: get_dead_letter
select about::text as about, headers::text as headers, body, place, told from dead_letter where tenant = $1 and id = $2

-- name: remove_dead_letter
delete from dead_letter where tenant = $1 and id = $2 returning id

-- name: expired_dead_letters
select tenant, id from dead_letter where at < $1 order by at limit $2

-- name: audited_tenants
-- One look into the index for each.
with recursive known as (
    (select tenant from history order by tenant limit 1)
    union all
    select n.tenant from known k cross join lateral (
           select tenant from history where tenant > k.tenant order by tenant limit 1) as n
)
select tenant from known

-- name: drop_audit
-- Of tenant $1: all that is told of the entities that have been silent since before $2, longest first, $3 of them. Runs
-- and tasks must have ended, or be lost. Replicas drop different ones.
with due as (
    select tenant, entity, id from history
     where tenant = $1 and touched_at < $2 and (closed or lost or entity not in ('run', 'task'))
     order by touched_at limit $3 for update skip locked
), told as (
    delete from event e using due where e.tenant = due.tenant and e.entity = due.entity and e.id = due.id
), used as (
    delete from usage u using due where due.entity = 'run' and u.tenant = due.tenant and u.run_id = due.id
), gone as (
    delete from history h using due where h.tenant = due.tenant and h.entity = due.entity and h.id = due.id
    returning h.id
)
select count(*) from gone
