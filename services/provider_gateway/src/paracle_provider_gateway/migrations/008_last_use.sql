-- Counts of runs and tasks are dropped some time after their last use, once their run has ended: a day is exact enough, and
-- writing the same day again costs no index anything. `run_id`: of a count of a run or a task; empty: of a task without one.
alter table counters add used_on date not null default current_date, add run_id text;

create index counters_by_last_use on counters (used_on) where run_id is not null;

-- As before, but that it notes the last use, and that tokens which an attempt did not use are taken from the minute in which
-- it was opened: a deployment's next minute owes it nothing.
create or replace function settle_batch(
    me text, c_id uuid[], l_key text[],
    s_tenant text[], s_call text[], s_serial bigint[], s_outcome text[], s_error text[], s_model text[],
    s_input bigint[], s_output bigint[], s_cached bigint[], s_reasoning bigint[],
    s_cost numeric[], s_counted_usd numeric[], s_counted_tokens bigint[],
    s_latency double precision[], s_first_token double precision[]
) returns setof integer language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
begin
    perform set_config('synchronous_commit', 'off', true);
    if cardinality(l_key) > 0 then
        perform from loads where deployment = any (l_key) order by deployment for update;
    end if;
    if cardinality(c_id) > 0 then
        perform from counters where id = any (c_id) order by id for update;
    end if;
    return query
    with given as (
        select * from unnest(s_tenant, s_call, s_serial, s_outcome, s_error, s_model, s_input, s_output, s_cached, s_reasoning,
                             s_cost, s_counted_usd, s_counted_tokens, s_latency, s_first_token)
            with ordinality g (tenant, call_id, serial, outcome, error, model, input, output, cached, reasoning,
                               cost, counted_usd, counted_tokens, latency, first_token, n)
    ), closed as (
        delete from open_attempts o using given g
         where o.tenant = g.tenant and o.call_id = g.call_id and o.serial = g.serial and (me is null or o.replica = me)
        returning o.tenant, o.call_id, o.serial, o.number, o.replica, o.project, o.principal, o.agent, o.run_id, o.task_id,
                  o.parent_task_id, o.step, o.provider, coalesce(g.model, o.model) as model, o.deployment, o.reserved_usd,
                  o.reserved_tokens, o.counters, o.opened_at, g.outcome, g.error, g.input, g.output, g.cached, g.reasoning,
                  g.cost, g.counted_usd, g.counted_tokens, g.latency, g.first_token, g.n
    ), kept as (
        insert into attempts
            (tenant, call_id, serial, number, replica, project, principal, agent, run_id, task_id, parent_task_id, step, provider, model,
             outcome, error, input_tokens, output_tokens, cached_tokens, reasoning_tokens, cost_usd, reserved_usd,
             reserved_tokens, counted_usd, counted_tokens, counters, opened_at, ended_at, latency_s, first_token_s)
        select tenant, call_id, serial, number, replica, project, principal, agent, run_id, task_id, parent_task_id, step, provider, model,
               outcome, error, input, output, cached, reasoning, cost, reserved_usd,
               reserved_tokens, counted_usd, counted_tokens, case outcome when 'unknown' then counters end, opened_at,
               clock_timestamp(), latency, first_token
          from closed
    ), charged as (
        select c.id, max(run_id) as run_id, max(task_id) as task_id,
               sum(coalesce(reserved_usd, 0)) as held_usd, sum(reserved_tokens) as held_tokens,
               sum(counted_usd) as usd, sum(counted_tokens) as tokens, count(*) filter (where counted_tokens > 0) as calls,
               count(*) filter (where counted_tokens > 0 and reserved_usd is null and cost is null) as unpriced
          from closed, unnest(counters) c (id) group by c.id
    ), counted as (
        update counters u
           set reserved_usd = u.reserved_usd - x.held_usd, reserved_tokens = u.reserved_tokens - x.held_tokens,
               spent_usd = u.spent_usd + x.usd, spent_tokens = u.spent_tokens + x.tokens,
               calls = u.calls + x.calls, unpriced_calls = u.unpriced_calls + x.unpriced,
               used_on = current_date,
               run_id = case when u.subject in (x.run_id, x.task_id) then coalesce(x.run_id, '') else u.run_id end
          from charged x where u.id = x.id
    ), freed as (
        update loads u
           set in_air = u.in_air - x.ended, tokens = greatest(0, u.tokens - x.unused),
               tokens_before = greatest(0, u.tokens_before - x.unused_before)
          from (select c.deployment, count(*) as ended,
                       coalesce(sum(unused) filter (where age = 0), 0) as unused,
                       coalesce(sum(unused) filter (where age = 1), 0) as unused_before
                  from closed c join loads l using (deployment),
                       lateral (select reserved_tokens - counted_tokens as unused,
                                       l.minute - floor(extract(epoch from opened_at) / 60)::bigint as age) o
                 group by c.deployment) x
         where u.deployment = x.deployment
    )
    select g.n::integer from given g where g.n not in (select n from closed) order by 1;
end $$;
