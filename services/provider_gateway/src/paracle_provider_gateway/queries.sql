-- name: seen
-- This replica is alive, by the clock of PostgreSQL, which all of them share.
insert into replicas (id, seen_at) values ($1, now()) on conflict (id) do update set seen_at = excluded.seen_at;

-- name: steady
insert into steady (replica) values ($1) on conflict do nothing;

-- name: gone
with left_too as (delete from steady where replica = $1)
delete from replicas where id = $1;

-- name: is_gone
-- It left, or two of its signs of life are missing, not counting the time in which PostgreSQL was not there to be told.
select not exists (
    select from replicas
     where id = $1 and silent_since(seen_at) > now() - interval '10 seconds');

-- name: page
-- The tenant's budgets, with the revision of its book; one row without a spec if it has none.
select coalesce(k.revision, 0) as revision, b.spec::text, b.born
  from (select $1::text as tenant) t left join books k using (tenant) left join budgets b using (tenant);

-- name: open_batch
select * from open_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
                         $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37);

-- name: settle_batch
select settle_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18);

-- name: correct_batch
select correct_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16);

-- name: note_cached
-- Attempts that were spared. What is told again is there already.
insert into attempts
    (tenant, call_id, serial, number, replica, project, principal, agent, run_id, task_id, parent_task_id, step, provider, model,
     outcome, cost_usd, reserved_tokens, counted_usd, counted_tokens, opened_at, ended_at, saved_usd, saved_tokens)
select x.tenant, x.call_id, x.serial, 1, $1, x.project, x.principal, x.agent, x.run, x.task, x.parent, x.step, x.provider, x.model,
       'cached', 0, 0, 0, 0, clock_timestamp(), clock_timestamp(), x.saved_usd, x.saved_tokens
  from unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
              $11::text[], $12::text[], $13::text[], $14::numeric[], $15::bigint[])
       x (tenant, call_id, serial, project, principal, agent, run, task, parent, step, provider, model, saved_usd, saved_tokens)
    on conflict do nothing;

-- name: find_answers
select x.n, a.answer, extract(epoch from now() - a.made_at)::double precision as age_s,
       extract(epoch from a.expires_at - now())::double precision as left_s
  from unnest($1::text[], $2::bytea[]) with ordinality x (tenant, question, n)
  join lateral ( -- each by its key, whatever the table is thought to hold
           select * from answers a where a.tenant = x.tenant and a.question = x.question and a.expires_at > now() limit 1
       ) a on true;

-- name: keep_answers
-- In one order, so that replicas do not wait for each other in a circle.
insert into answers as a (tenant, question, answer, made_at, expires_at)
select x.tenant, x.question, x.answer, now() - make_interval(secs => x.age_s), now() + make_interval(secs => x.left_s)
  from unnest($1::text[], $2::bytea[], $3::bytea[], $4::double precision[], $5::double precision[])
       x (tenant, question, answer, age_s, left_s)
 order by x.tenant, x.question
    on conflict (tenant, question) do update
   set answer = excluded.answer, made_at = excluded.made_at, expires_at = excluded.expires_at
 where a.made_at <= excluded.made_at;

-- name: clear_answers
with gone as (delete from answers where tenant = $1 returning 1) select count(*)::integer from gone;

-- name: drop_answers
-- What has expired, and the oldest of tenants that have more than so many.
with fat as (
    select tenant from answers group by tenant having count(*) > $2
), old as (
    (select tenant, question from answers where expires_at <= now() limit $1)
     union
    (select tenant, question
       from (select tenant, question, row_number() over (partition by tenant order by made_at desc) as place
               from answers where tenant in (select tenant from fat)) a
      where place > $2 limit $1)
), gone as (
    delete from answers a using old where a.tenant = old.tenant and a.question = old.question returning 1
)
select count(*)::integer from gone;

-- name: close_call
select close_orphans(1000, $1, $2, $3);

-- name: forget_replicas
-- A replica says every five seconds that it is there, as long as PostgreSQL is there to be told.
with forgotten as (
    delete from replicas where silent_since(seen_at) < now() - interval '20 seconds' returning id)
delete from steady where replica in (select id from forgotten);

-- name: close_orphans
select close_orphans($1);

-- name: usage
-- What attempts used: first the total, then the rows. The adapter fills in what is in capitals, out of its own fragments.
-- Means are those of the sums, so that the total is not a mean of means.
with known as (
    select ended_at as at, * from attempts),
underway as (
    select opened_at as at, * from open_attempts),
spent as (
    select /*KEYS*/ outcome, input_tokens, output_tokens, cached_tokens, reasoning_tokens, cost_usd, counted_tokens,
           0::numeric as reserved_usd, latency_s, first_token_s, saved_usd, saved_tokens
      from known where /*WANTED*/
     union all
    select /*KEYS*/ outcome, 0, 0, 0, 0, null, 0, reserved_usd, null, null, null, 0
      from (select *, 'open' as outcome from underway) as o where /*WANTED*/),
grouped as materialized (
    select /*NAMES*/ count(*) as n, count(*) filter (where outcome = 'failed') as failed,
           count(*) filter (where outcome = 'open') as open, count(*) filter (where outcome = 'cached') as cached,
           coalesce(sum(input_tokens), 0)::bigint as input_tokens, coalesce(sum(output_tokens), 0)::bigint as output_tokens,
           coalesce(sum(cached_tokens), 0)::bigint as cached_tokens,
           coalesce(sum(reasoning_tokens), 0)::bigint as reasoning_tokens, coalesce(sum(cost_usd), 0) as cost_usd,
           count(*) filter (where cost_usd is null and (counted_tokens > 0 or outcome = 'unknown')) as unpriced,
           coalesce(sum(reserved_usd), 0) as reserved_usd, coalesce(sum(saved_usd), 0) as saved_usd,
           coalesce(sum(saved_tokens), 0)::bigint as saved_tokens, sum(latency_s) as took, count(latency_s) as timed,
           sum(first_token_s) as waited, count(first_token_s) as streamed
      from spent group by /*GROUPS*/)
(select /*NOTHING*/ coalesce(sum(n), 0)::bigint as n, coalesce(sum(failed), 0)::bigint as failed,
       coalesce(sum(open), 0)::bigint as open, coalesce(sum(cached), 0)::bigint as cached, coalesce(sum(input_tokens), 0)::bigint as input_tokens,
       coalesce(sum(output_tokens), 0)::bigint as output_tokens, coalesce(sum(cached_tokens), 0)::bigint as cached_tokens,
       coalesce(sum(reasoning_tokens), 0)::bigint as reasoning_tokens, coalesce(sum(cost_usd), 0) as cost_usd,
       coalesce(sum(unpriced), 0)::bigint as unpriced, coalesce(sum(reserved_usd), 0) as reserved_usd,
       coalesce(sum(saved_usd), 0) as saved_usd, coalesce(sum(saved_tokens), 0)::bigint as saved_tokens,
       sum(took) / nullif(sum(timed), 0) as latency_s, sum(waited) / nullif(sum(streamed), 0) as first_token_s
  from grouped)
union all
(select /*NAMES*/ n, failed, open, cached, input_tokens, output_tokens, cached_tokens, reasoning_tokens, cost_usd, unpriced,
        reserved_usd, saved_usd, saved_tokens, took / nullif(timed, 0), waited / nullif(streamed, 0)
   from grouped order by /*ORDER*/ cost_usd desc, n desc/*REST*/ limit /*LIMIT*/);

-- name: attempts
-- Attempts, newest first; those in the air are among them.
with known as (select ended_at as at, * from attempts),
underway as (select opened_at as at, 'open' as outcome, * from open_attempts)
(select at, call_id, serial, number, provider, model, outcome, error, agent, principal, project, run_id, task_id,
        parent_task_id, step, input_tokens, output_tokens, cached_tokens, reasoning_tokens, cost_usd, reserved_usd,
        latency_s, first_token_s, saved_usd, saved_tokens
   from known where /*WANTED*/ and (at, call_id, serial) < (/*BEFORE*/)
  order by at desc, call_id desc, serial desc limit /*LIMIT*/)
union all
(select at, call_id, serial, number, provider, model, outcome, null, agent, principal, project, run_id, task_id,
        parent_task_id, step, 0, 0, 0, 0, null, reserved_usd, null, null, null, 0
   from underway where /*WANTED*/ and (at, call_id, serial) < (/*BEFORE*/)
  order by at desc, call_id desc, serial desc limit /*LIMIT*/)
 order by at desc, call_id desc, serial desc limit /*LIMIT*/;

-- name: put_budget
with book as (
    insert into books as b (tenant, revision) values ($1, 1)
        on conflict (tenant) do update set revision = b.revision + 1
    returning revision
)
insert into budgets as b (tenant, name, spec, born, revision, set_by, set_at)
select $1, $2, $3::jsonb, book.revision, 1, $4, now() from book
    on conflict (tenant, name) do update
   set spec = excluded.spec, revision = b.revision + 1, set_by = excluded.set_by, set_at = excluded.set_at;

-- name: lock_counters
-- In the order in which calls lock them.
select from counters where tenant = $1 and budget = $2 order by id for update;

-- name: remove_counters
delete from counters where tenant = $1 and budget = $2;

-- name: remove_budget
with gone as (delete from budgets where tenant = $1 and name = $2 returning tenant),
     forgotten as (delete from raises where tenant = $1 and budget = $2)
update books set revision = revision + 1 where tenant in (select tenant from gone);

-- name: hold_counter
-- How far it was raised. It is made if need be, since nobody can hold what is not there: another raise would see nothing either.
insert into counters as c (id, tenant, budget, born, subject, period) values ($1, $2, $3, $4, $5, $6)
    on conflict (id) do update set raised_usd = c.raised_usd
returning raised_usd, raised_tokens;

-- name: lock_budget
select spec::text, born from budgets where tenant = $1 and name = $2 for update;

-- name: note_raise
insert into raises (tenant, budget, key, void, at) values ($1, $2, $3, $4, now()) on conflict do nothing returning 1;

-- name: is_raised
select not void from raises where tenant = $1 and budget = $2 and key = $3;

-- name: raise_counter
-- It may be hit again, which is told again.
insert into counters as c (id, tenant, budget, born, subject, period, raised_usd, raised_tokens)
values ($1, $2, $3, $4, $5, $6, $7, $8)
    on conflict (id) do update
   set raised_usd = c.raised_usd + excluded.raised_usd, raised_tokens = c.raised_tokens + excluded.raised_tokens, hit_at = null;

-- name: find_budgets
select spec::text, born, revision, set_by, set_at
  from budgets
 where tenant = $1 and ($2::text is null or name = $2) and ($3::text is null or spec ->> 'scope' = $3)
 order by name;

-- name: budget_uses
select c.budget, c.subject, c.period, c.hit_at, c.spent_usd, c.reserved_usd, c.raised_usd, c.spent_tokens, c.reserved_tokens,
       c.raised_tokens, c.calls, c.unpriced_calls
  from unnest($2::text[], $3::text[]) w (name, period)
  join budgets b on b.tenant = $1 and b.name = w.name
  join lateral (
           select * from counters c
            where c.tenant = $1 and c.budget = w.name and c.period = w.period and c.born = b.born
              and ($4::text is null or c.subject = $4)
            order by c.spent_usd desc, c.spent_tokens desc, c.subject
            limit $5
       ) c on true
 order by c.budget, c.spent_usd desc, c.spent_tokens desc, c.subject;

-- name: note_event
select note_event($1, $2, $3, $4, $5::jsonb);

-- name: untold_events
select tenant, budget, seq, type, principal, at, data::text from budget_events where not published order by at, seq limit $1;

-- name: mark_events_told
update budget_events e
   set published = true
  from unnest($1::text[], $2::text[], $3::bigint[]) as told (tenant, budget, seq)
 where (e.tenant, e.budget, e.seq) = (told.tenant, told.budget, told.seq);

-- name: mark_events_untold
update budget_events set published = false where published and at >= now() - $1::interval;

-- name: drop_attempts
with old as (
    select tenant, call_id, serial from attempts where ended_at < now() - make_interval(secs => $1) limit $2
), gone as (
    delete from attempts a using old
     where a.tenant = old.tenant and a.call_id = old.call_id and a.serial = old.serial
    returning 1
)
select count(*)::integer from gone;

-- name: drop_counters
-- Days and months that are over for two months; names of periods are in the order of time.
delete from counters
 where period <> 'total' and period < to_char(now() - interval '62 days', 'YYYY-MM-DD') and reserved_tokens = 0;

-- name: setup_kept
select manifests::text from setups where tenant = $1;

-- name: keep_setup
-- Unless a newer one is kept.
insert into setups as s (tenant, version, manifests, kept_at) values ($1, $2, $3::json, now())
    on conflict (tenant) do update set version = excluded.version, manifests = excluded.manifests, kept_at = excluded.kept_at
 where s.version <= excluded.version;

-- name: idle_counts
-- Of budgets for each run or task, those that nothing is reserved on, and that were used last so long ago.
select c.id, c.tenant, c.run_id
  from counters c join budgets b on b.tenant = c.tenant and b.name = c.budget and b.born = c.born
 where c.run_id is not null and c.used_on < (now() - make_interval(secs => $1))::date and c.reserved_tokens = 0
   and b.spec ->> 'scope' in ('run', 'task') and coalesce(b.spec ->> 'of', '*') = '*'
 order by c.used_on, c.id limit $2;

-- name: keep_counts
update counters set used_on = current_date where id = any ($1::uuid[]);

-- name: drop_counts
-- One that was used in the meantime stays.
delete from counters
 where id = any ($1::uuid[]) and used_on < (now() - make_interval(secs => $2))::date and reserved_tokens = 0;

-- name: loads_now
-- Of the last minute, as `open_batch` counts it: what was asked in the calendar minute before is taken to be even.
with clock as (select extract(epoch from clock_timestamp()) / 60 as minutes),
     lately as (
         select l.deployment, l.in_air, 1 - (minutes - floor(minutes)) as share, floor(minutes)::bigint - l.minute as age,
                l.requests, l.tokens, l.requests_before, l.tokens_before
           from loads l, clock where l.deployment = any ($1::text[])
     )
select deployment, in_air,
       round(case age when 0 then requests + requests_before * share when 1 then requests * share else 0 end)::bigint as requests,
       round(case age when 0 then tokens + tokens_before * share when 1 then tokens * share else 0 end)::bigint as tokens
  from lately;
