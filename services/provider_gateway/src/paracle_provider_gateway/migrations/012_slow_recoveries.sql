-- When a replica had said all it knows: of the first, that PostgreSQL, which does not tell it itself, was there again after a crash.
alter table steady add column since timestamptz not null default clock_timestamp();

-- From when on a replica is silent that was seen at that time last. While PostgreSQL recovers from a crash, which only restarts its sessions
-- maybe, nobody can say anything; so silence begins when somebody could, however long that took.
create function silent_since(seen_at timestamptz) returns timestamptz language sql stable as $$
    select greatest(seen_at, pg_postmaster_start_time(), coalesce((select min(since) from steady), clock_timestamp()))
$$;

-- As before, but that nothing is granted to a replica that has not said itself what it knows, and that recovering may take its time.
--
-- Room for a batch of attempts, in order. Returns a row for each that is not granted.
--
-- a_mode: 0 as usual; 1 even if another replica had the call; 2 it was granted before, and may have been forgotten.
-- a_book, a_load: its place in b_*, l_* (0: none). a_counters: the ids of what it goes on, as an array's text. p_*: pairs
-- of an attempt and its counter in c_*, by attempt; p_strict: whether that counter may hold it back.
create or replace function open_batch(
    me text,
    a_tenant text[], a_call text[], a_serial bigint[], a_number integer[], a_mode smallint[], a_book integer[], a_load integer[],
    a_project text[], a_principal text[], a_agent text[], a_run text[], a_task text[], a_parent text[], a_step text[],
    a_provider text[], a_model text[], a_usd numeric[], a_tokens bigint[], a_counters text[],
    b_tenant text[], b_revision bigint[],
    l_key text[], l_in_air integer[], l_requests bigint[], l_tokens bigint[],
    c_id uuid[], c_tenant text[], c_budget text[], c_born bigint[], c_subject text[], c_period text[],
    c_limit_usd numeric[], c_limit_tokens bigint[],
    p_attempt integer[], p_counter integer[], p_strict boolean[]
) returns table (
    at integer, verdict text, by_index integer, after_s double precision, owner text,
    spent_usd numeric, reserved_usd numeric, raised_usd numeric, spent_tokens bigint, reserved_tokens bigint, raised_tokens bigint
) language plpgsql
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
#variable_conflict use_column
declare
    moment timestamptz := clock_timestamp();
    minutes double precision := extract(epoch from moment) / 60;
    this_minute bigint := floor(minutes);
    passed double precision := minutes - floor(minutes);
    attempts_n integer := cardinality(a_tenant);
    pairs_n integer := cardinality(p_attempt);
    loads_n integer := cardinality(l_key);
    counters_n integer := cardinality(c_id);
    stale boolean[];
    owners text[];
    known boolean[];
    spent_u numeric[]; reserved_u numeric[]; raised_u numeric[]; add_u numeric[];
    spent_t bigint[]; reserved_t bigint[]; raised_t bigint[]; add_t bigint[];
    is_hit boolean[]; was_hit boolean[];
    air integer[]; asked bigint[]; used bigint[]; asked_before bigint[]; used_before bigint[];
    ok boolean[] := array_fill(false, array[attempts_n]);
    pair integer := 1;
    first_pair integer;
    granted boolean := false;
    c integer; l integer; why text; who integer; wait_s double precision;
    in_doubt boolean := not exists (select from steady s where s.replica = me)
        or exists ( -- of one that is gone nothing more is to be heard
            select from (select r.seen_at from replicas r
                          where not exists (select from steady s where s.replica = r.id) offset 0) x -- most often there is none
             where silent_since(x.seen_at) > moment - interval '10 seconds');
begin
    perform set_config('synchronous_commit', 'off', true);

    select array_agg(coalesce(b.revision, 0) <> x.revision order by x.n)
      into stale
      from unnest(b_tenant, b_revision) with ordinality x (tenant, revision, n)
      left join books b on b.tenant = x.tenant;

    select array_agg(coalesce(o.replica, e.replica) order by x.n)
      into owners
      from unnest(a_tenant, a_call, a_mode) with ordinality x (tenant, call_id, mode, n)
      left join lateral (
               select o.replica from open_attempts o
                where o.tenant = x.tenant and o.call_id = x.call_id and o.replica <> me limit 1
           ) o on x.mode = 0
      left join lateral (
               select e.replica from attempts e -- by its call alone: the plan is made while there are no statistics
                where e.call_id = x.call_id and e.tenant || '' = x.tenant and e.replica <> me and e.outcome = 'completed' limit 1
           ) e on x.mode = 0 and o.replica is null;

    if 2 = any (a_mode) then
        select array_agg(exists (select from open_attempts o where (o.tenant, o.call_id, o.serial) = (x.tenant, x.call_id, x.serial))
                      or exists (select from attempts e where e.call_id = x.call_id and e.tenant || '' = x.tenant and e.serial = x.serial)
                      order by x.n)
          into known
          from unnest(a_tenant, a_call, a_serial) with ordinality x (tenant, call_id, serial, n);
    end if;

    if loads_n > 0 then
        insert into loads (deployment) select k from unnest(l_key) k where not exists (select from loads where deployment = k)
            order by 1 on conflict do nothing;
        perform from loads where deployment = any (l_key) order by deployment for update;
        select array_agg(in_air order by x.n),
               array_agg(case this_minute - minute when 0 then requests else 0 end order by x.n),
               array_agg(case this_minute - minute when 0 then tokens else 0 end order by x.n),
               array_agg(case this_minute - minute when 0 then requests_before when 1 then requests else 0 end order by x.n),
               array_agg(case this_minute - minute when 0 then tokens_before when 1 then tokens else 0 end order by x.n)
          into air, asked, used, asked_before, used_before
          from unnest(l_key) with ordinality x (key, n) join loads on deployment = x.key;
    end if;

    if counters_n > 0 then
        if (select count(*) from counters where id = any (c_id)) < counters_n then
            insert into counters (id, tenant, budget, born, subject, period)
            select x.* from unnest(c_id, c_tenant, c_budget, c_born, c_subject, c_period) x (id, tenant, budget, born, subject, period)
             order by x.id on conflict do nothing;
        end if;
        perform from counters where id = any (c_id) order by id for update;
        select array_agg(spent_usd order by x.n), array_agg(reserved_usd order by x.n), array_agg(raised_usd order by x.n),
               array_agg(spent_tokens order by x.n), array_agg(reserved_tokens order by x.n), array_agg(raised_tokens order by x.n),
               array_agg(hit_at is not null order by x.n)
          into spent_u, reserved_u, raised_u, spent_t, reserved_t, raised_t, was_hit
          from unnest(c_id) with ordinality x (id, n) join counters using (id);
        add_u := array_fill(0::numeric, array[counters_n]);
        add_t := array_fill(0::bigint, array[counters_n]);
        is_hit := array_fill(false, array[counters_n]);
    end if;

    for i in 1 .. attempts_n loop
        first_pair := pair;
        while pair <= pairs_n and p_attempt[pair] = i loop
            pair := pair + 1;
        end loop;
        if a_mode[i] = 2 then
            continue when known[i];
        else
            why := null;
            who := 0;
            wait_s := 0;
            if in_doubt then
                why := 'doubt'; wait_s := 0.25;
            elsif stale[a_book[i]] then
                why := 'stale';
            elsif owners[i] is not null then
                why := 'elsewhere';
            else
                l := a_load[i];
                if l > 0 then
                    if air[l] >= l_in_air[l] then
                        why := 'concurrency'; who := l; wait_s := 0.1;
                    elsif asked[l] + asked_before[l] * (1 - passed) + 1 > l_requests[l] then
                        why := 'requests'; who := l;
                        wait_s := minute_wait(asked[l] + 1, asked_before[l], l_requests[l], passed);
                    elsif used[l] + used_before[l] * (1 - passed) > 0
                          and used[l] + used_before[l] * (1 - passed) + a_tokens[i] > l_tokens[l] then
                        why := 'tokens'; who := l;
                        wait_s := minute_wait(used[l] + a_tokens[i], used_before[l], l_tokens[l], passed);
                    end if;
                end if;
                for k in first_pair .. pair - 1 loop
                    c := p_counter[k];
                    continue when not p_strict[k];
                    if spent_u[c] >= c_limit_usd[c] + raised_u[c] or spent_t[c] >= c_limit_tokens[c] + raised_t[c] then
                        why := 'over'; who := c;
                        is_hit[c] := true;
                        exit;
                    elsif spent_u[c] + reserved_u[c] >= c_limit_usd[c] + raised_u[c]
                          or spent_t[c] + reserved_t[c] >= c_limit_tokens[c] + raised_t[c] then
                        why := 'full'; who := c; wait_s := 0.1;
                    end if;
                end loop;
            end if;
            if why is not null then
                at := i; verdict := why; by_index := who; after_s := wait_s; owner := owners[i];
                if why = 'over' or why = 'full' then
                    spent_usd := spent_u[who]; reserved_usd := reserved_u[who]; raised_usd := raised_u[who];
                    spent_tokens := spent_t[who]; reserved_tokens := reserved_t[who]; raised_tokens := raised_t[who];
                end if;
                return next;
                continue;
            end if;
        end if;
        ok[i] := true;
        granted := true;
        l := a_load[i];
        if l > 0 then
            air[l] := air[l] + 1;
            asked[l] := asked[l] + 1;
            used[l] := used[l] + a_tokens[i];
        end if;
        for k in first_pair .. pair - 1 loop
            c := p_counter[k];
            add_u[c] := add_u[c] + coalesce(a_usd[i], 0);
            add_t[c] := add_t[c] + a_tokens[i];
            reserved_u[c] := reserved_u[c] + coalesce(a_usd[i], 0);
            reserved_t[c] := reserved_t[c] + a_tokens[i];
        end loop;
    end loop;

    if loads_n > 0 then
        update loads set in_air = x.air, minute = this_minute, requests = x.asked, tokens = x.used,
                         requests_before = x.asked_before, tokens_before = x.used_before
          from unnest(l_key, air, asked, used, asked_before, used_before) x (key, air, asked, used, asked_before, used_before)
         where deployment = x.key;
    end if;
    if counters_n > 0 then
        update counters u set reserved_usd = u.reserved_usd + x.usd, reserved_tokens = u.reserved_tokens + x.tokens
          from unnest(c_id, add_u, add_t) x (id, usd, tokens)
         where u.id = x.id and x.tokens > 0;
        for k in 1 .. counters_n loop
            if is_hit[k] and not was_hit[k] then
                update counters set hit_at = moment where id = c_id[k];
                perform note_event(c_tenant[k], c_budget[k], 'budget.hit', '', jsonb_strip_nulls(jsonb_build_object(
                    'subject', c_subject[k], 'period', c_period[k],
                    'spent_usd', spent_u[k]::text, 'limit_usd', (c_limit_usd[k] + raised_u[k])::text,
                    'spent_tokens', spent_t[k], 'limit_tokens', c_limit_tokens[k] + raised_t[k])));
            end if;
        end loop;
    end if;
    if granted then
        insert into open_attempts
            (tenant, call_id, serial, number, replica, project, principal, agent, run_id, task_id, parent_task_id, step,
             provider, model, deployment, reserved_usd, reserved_tokens, counters, opened_at)
        select x.tenant, x.call_id, x.serial, x.number, me, x.project, x.principal, x.agent, x.run, x.task, x.parent, x.step,
               x.provider, x.model, case when x.load > 0 then l_key[x.load] end, x.usd, x.tokens,
               x.counters::uuid[], moment
          from unnest(a_tenant, a_call, a_serial, a_number, a_project, a_principal, a_agent, a_run, a_task, a_parent, a_step,
                      a_provider, a_model, a_load, a_usd, a_tokens, a_counters, ok)
               x (tenant, call_id, serial, number, project, principal, agent, run, task, parent, step,
                  provider, model, load, usd, tokens, counters, ok)
         where x.ok
         order by x.tenant, x.call_id, x.serial;
    end if;
end $$;
