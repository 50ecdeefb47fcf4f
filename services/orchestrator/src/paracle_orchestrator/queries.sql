-- name: put_plan
-- The same digest is the same plan, so a second writer has nothing to add but that it is still used.
insert into plans as p (tenant, digest, document, family) values ($1, $2, $3::text::json, $4::text[])
    on conflict (tenant, digest) do update set used_at = now(), family = excluded.family
 where p.used_at < now() - interval '10 minutes';

-- name: get_plan
select document::text from plans where tenant = $1 and digest = $2;

-- Lists of runs. Each `*_places` finds the places (time and id) of the newest runs in one index: $1 tenant, $2 statuses,
-- $3 not before this time, $4 and $5 only before this place, $6 how many at most. `runs_at` reads the runs there.
-- One scan for each status, and the newest of all: every index has the status before the time.

-- name: places
select r.created_at, r.id
  from unnest($2::text[]) as one(status) cross join lateral (
       select created_at, id from runs
        where tenant = $1 and status = one.status
          and created_at >= $3::timestamptz and (created_at, id) < ($4::timestamptz, $5::text)
        order by created_at desc, id desc limit $6) as r
 order by r.created_at desc, r.id desc limit $6

-- name: workflow_places
-- $7 workflow.
select r.created_at, r.id
  from unnest($2::text[]) as one(status) cross join lateral (
       select created_at, id from runs
        where tenant = $1 and workflow = $7 and status = one.status
          and created_at >= $3::timestamptz and (created_at, id) < ($4::timestamptz, $5::text)
        order by created_at desc, id desc limit $6) as r
 order by r.created_at desc, r.id desc limit $6

-- name: label_places
-- $7 and $8: key and value.
select r.created_at, r.id
  from unnest($2::text[]) as one(status) cross join lateral (
       select created_at, id from run_labels
        where tenant = $1 and label = run_label($7, $8) and status = one.status
          and created_at >= $3::timestamptz and (created_at, id) < ($4::timestamptz, $5::text)
        order by created_at desc, id desc limit $6) as r
 order by r.created_at desc, r.id desc limit $6

-- name: workflow_label_places
-- $7 and $8: key and value; $9 workflow.
select r.created_at, r.id
  from unnest($2::text[]) as one(status) cross join lateral (
       select created_at, id from run_labels
        where tenant = $1 and label = run_label($7, $8) and workflow = $9 and status = one.status
          and created_at >= $3::timestamptz and (created_at, id) < ($4::timestamptz, $5::text)
        order by created_at desc, id desc limit $6) as r
 order by r.created_at desc, r.id desc limit $6

-- name: child_places
-- $7 the parent. A run has few children as runs go: its list has no part for each status, and `runs_at` leaves out.
select created_at, id from runs
 where tenant = $1 and parent = $7 and status = any($2::text[])
   and created_at >= $3::timestamptz and (created_at, id) < ($4::timestamptz, $5::text)
 order by created_at desc, id desc limit $6

-- name: runs_at
-- The runs at `place`: those of them with workflow $W and labels $L (null: any), and, in every row, how many
-- places there were and the last of them.
select scanned.number, scanned.last_at, scanned.last_id, r.*
  from (select count(*) as number, (array_agg(created_at order by created_at, id))[1] as last_at,
               (array_agg(id order by created_at, id))[1] as last_id from place) as scanned
  left join (
       select p.created_at as at, f.*
         from place p cross join lateral (
              select id, workflow, revision, status, created_at, finished_at, labels::text as labels, plan,
                     priority, parent, forked_from
                from runs where id = p.id and tenant = $1
                 and ($W::text is null or workflow = $W) and ($L::text is null or labels::jsonb @> $L::jsonb)
               offset 0) as f) as r on true
 order by r.created_at desc, r.id desc

-- name: turns_before
-- The runs of the session of run $2 that were accepted before it and have not ended, the last first; at most $3 (null: all).
-- Not those that wait for a slot: they may wait for the one that it has.
select r.id from runs me join runs r on r.tenant = me.tenant and r.session = me.session
 where me.tenant = $1 and me.id = $2 and r.session is not null and r.session_place < me.session_place
   and r.finished_at is null and (r.status <> 'queued' or r.claimed)
 order by r.session_place desc limit $3

-- name: rarest_label
-- Of the labels with keys $3 and values $4: the one that the fewest runs of the statuses $2 have, each counted to $5.
select one.key, one.value
  from unnest($3::text[], $4::text[]) as one(key, value) cross join lateral (
       select sum(counted.number) as number
         from unnest($2::text[]) as s(status) cross join lateral (
              select count(*) as number from (
                     select from run_labels
                      where tenant = $1 and label = run_label(one.key, one.value) and status = s.status limit $5) as found
              ) as counted) as all_of_it
 order by number limit 1;

-- name: show_approvals
-- Replicas may say what they know in any order. Runs may have been dropped meanwhile, and their approvals with them.
-- An id that another tenant has taken stays his: what is asked of one tenant must not stand in the row of another.
-- `who` has the principals, the roles, and those who have decided: PostgreSQL cannot look into every `document`.
insert into approvals (id, tenant, run_id, version, workflow, status, asked_at, requested_by, own, principals, roles,
                       decided, document)
select g.id, g.tenant, g.run_id, g.version, g.workflow, g.status, g.asked_at, g.requested_by, g.own,
       array(select json_array_elements_text(g.who::json -> 0)), array(select json_array_elements_text(g.who::json -> 1)),
       array(select json_array_elements_text(g.who::json -> 2)), g.document::json
  from unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::text[], $6::text[], $7::timestamptz[], $8::text[],
              $9::boolean[], $10::text[], $11::text[])
       as g(id, tenant, run_id, version, workflow, status, asked_at, requested_by, own, who, document)
  join runs r on r.id = g.run_id and r.tenant = g.tenant
 order by g.id
    on conflict (id) do update
   set version = excluded.version, status = excluded.status, principals = excluded.principals, roles = excluded.roles,
       decided = excluded.decided, document = excluded.document
 where approvals.version < excluded.version and approvals.tenant = excluded.tenant;

-- name: get_approval
select document::text from approvals where tenant = $1 and id = $2;

-- name: left_open_approvals
-- Those that the list leaves open though their runs have ended, after id $1.
select a.id, a.run_id from approvals a join runs r on r.id = a.run_id
 where a.open and a.id > $1 and r.finished_at is not null order by a.id limit $2;

-- name: list_approvals
-- Open ones first, then the newest. $2 status, $3 run, $4 workflow, $5 whoever is named or has the role; $6 and $7: a
-- principal and his roles, for what he may approve; $8 to $10: the place of the last one of the page before.
select document::text
  from approvals
 where tenant = $1
   and ($2::text is null or status = $2)
   and ($3::text is null or run_id = $3)
   and ($4::text is null or workflow = $4)
   and ($5::text is null or $5 = any(principals) or $5 = any(roles))
   and ($6::text is null or (
            open
        and (cardinality(principals) + cardinality(roles) = 0 or $6 = any(principals) or roles && $7::text[])
        and (requested_by <> $6 or own)
        and $6 <> all(decided)))
   and ($8::boolean is null or (open, asked_at, id) < ($8, $9::timestamptz, $10::text))
 order by open desc, asked_at desc, id desc
 limit $11;

-- name: trigger_version
select version from trigger_tenants where tenant = $1;

-- name: put_trigger_version
-- Never back: of two replicas that follow at once, the slower one has nothing to add.
insert into trigger_tenants as t (tenant, version, checked_at) values ($1, $2, $3)
    on conflict (tenant) do update
   set version = greatest(t.version, excluded.version), checked_at = greatest(t.checked_at, excluded.checked_at);

-- name: unchecked_tenants
update trigger_tenants t
   set checked_at = $1
  from (select tenant from trigger_tenants
         where checked_at < $2 order by checked_at limit $3 for update skip locked) old
 where t.tenant = old.tenant
returning t.tenant;

-- name: lock_learning
-- One replica at a time learns of a tenant's triggers: a row that is not there yet cannot be locked.
select pg_advisory_xact_lock(hashtextextended('paracle.triggers.' || $1, 0));

-- name: lock_trigger
select * from triggers where tenant = $1 and name = $2 for update;

-- name: get_trigger
select * from triggers where tenant = $1 and name = $2 and not deleted;

-- name: list_triggers
select * from triggers where tenant = $1 and name > $2 and not deleted order by name limit $3;

-- name: triggers_on_messages
select * from triggers where tenant = any($1::text[]) and on_messages and not deleted order by tenant, name;

-- name: put_trigger
insert into triggers as t (tenant, name, revision, deleted, spec, on_messages, cursor, due_at, paused, paused_by,
                           paused_at, paused_reason, commands, problem, skipped, dropped, failed)
values ($1, $2, $3, $4, $5::text::json, $6, $7, $8, $9, $10, $11, $12, $13::text::json, $14, $15, $16, $17)
    on conflict (tenant, name) do update
   set revision = excluded.revision, deleted = excluded.deleted, spec = excluded.spec,
       on_messages = excluded.on_messages, cursor = excluded.cursor, due_at = excluded.due_at,
       paused = excluded.paused, paused_by = excluded.paused_by, paused_at = excluded.paused_at,
       paused_reason = excluded.paused_reason, commands = excluded.commands, problem = excluded.problem,
       skipped = excluded.skipped, dropped = excluded.dropped, failed = excluded.failed;

-- name: forget_trigger
-- One that was deleted and is applied again begins anew.
delete from triggers where tenant = $1 and name = $2 and deleted;

-- name: due_triggers
-- Each is looked at by one replica at a time; what another one has in hand is left to it.
select * from triggers where due_at <= $1 and not deleted order by due_at limit $2 for update skip locked;

-- name: soonest_trigger
select min(due_at) from triggers where due_at is not null;

-- name: open_starts
-- Starts whose runs may be under way, and whether they are: a run that was forgotten has ended.
select s.tenant, s.trigger, s.run_id,
       s.status = 'pending' or (r.id is not null and r.finished_at is null) as under_way
  from trigger_starts s
  join unnest($1::text[], $2::text[]) as asked (tenant, trigger) using (tenant, trigger)
  left join runs r on r.id = s.run_id
 where s.open
 order by s.at, s.scheduled_at;

-- name: close_starts
update trigger_starts set open = false where run_id = any($1::text[]);

-- name: close_ended_starts
-- Those of triggers that are never due: nobody asks whether their runs are under way.
update trigger_starts s set open = false
 where open and status = 'started'
   and not exists (select from runs r where r.id = s.run_id and r.finished_at is null);

-- name: add_start
insert into trigger_starts
       (run_id, tenant, trigger, cause, at, scheduled_at, command, cancels, status, error, retry_at, open)
values ($1, $2, $3, $4, $5, $6, $7::text::json, $8, $9, $10::text::json, $11, $9 = 'pending')
    on conflict do nothing
returning run_id;

-- name: get_start
select * from trigger_starts where run_id = $1;

-- name: count_failed
update triggers set failed = failed + 1 where tenant = $1 and name = $2;

-- name: claim_starts
-- Those of a schedule in order: one whose forerunner is still pending waits for it.
update trigger_starts s
   set retry_at = $2
  from (select run_id from trigger_starts p
         where retry_at <= $1
           and not exists (select from trigger_starts e
                            where e.tenant = p.tenant and e.trigger = p.trigger and e.retry_at is not null
                              and e.scheduled_at < p.scheduled_at)
         order by retry_at limit $3 for update skip locked) due
 where s.run_id = due.run_id
returning s.*;

-- name: settle_start
-- Counted once, whoever settles it.
with settled as (
    update trigger_starts
       set status = $2, error = $3::text::json, retry_at = null, open = open and $2 = 'started'
     where run_id = $1 and status = 'pending'
    returning tenant, trigger, at
)
update triggers t
   set fired = fired + ($2 = 'started')::int, failed = failed + ($2 = 'failed')::int,
       last_at = case when $2 = 'started' then greatest(t.last_at, settled.at) else t.last_at end
  from settled
 where t.tenant = settled.tenant and t.name = settled.trigger;

-- name: take_keys
-- A key is free, or expired, or has been this run's since the message came before. Of several that want one key now, it
-- is the run's that has it already, or else the first one's.
insert into trigger_keys as k (tenant, trigger, key, run_id, expires_at)
select distinct on (a, b, c) a, b, c, d, e
  from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[]) with ordinality as new (a, b, c, d, e, n)
  left join trigger_keys had on (had.tenant, had.trigger, had.key, had.run_id) = (a, b, c, d)
 order by a, b, c, had.run_id nulls last, n
    on conflict (tenant, trigger, key) do update set run_id = excluded.run_id, expires_at = excluded.expires_at
 where k.expires_at <= $6 or k.run_id = excluded.run_id
returning run_id;

-- name: release_keys
delete from trigger_keys k
 using unnest($1::text[], $2::text[], $3::text[], $4::text[]) as refused (tenant, trigger, key, run_id)
 where (k.tenant, k.trigger, k.key, k.run_id) = (refused.tenant, refused.trigger, refused.key, refused.run_id);

-- name: record_starts
-- Starts of messages, and what else became of messages. A start that is recorded again is not counted again. Triggers
-- are locked in one order, so that replicas wait for each other rather than die.
with given as (
    select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::text[])
        as new (run_id, tenant, trigger, cause, at, status, error)
), counted as (
    select * from unnest($8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::bigint[])
        as new (tenant, trigger, dropped, duplicates, failed)
), locked as (
    select tenant, name from triggers
     where (tenant, name) in (select tenant, trigger from given union select tenant, trigger from counted)
     order by tenant, name for update
), fresh as (
    insert into trigger_starts (run_id, tenant, trigger, cause, at, cancels, status, error, open)
    select run_id, tenant, trigger, cause, at, '{}', status, error::json, false from given
     where (select count(*) from locked) >= 0
        on conflict do nothing
    returning tenant, trigger, at, status
), together as (
    select tenant, trigger, sum(fired) as fired, sum(failed) as failed, sum(dropped) as dropped,
           sum(duplicates) as duplicates, max(at) as at
      from (select tenant, trigger, (status = 'started')::int as fired, (status = 'failed')::int as failed,
                   0 as dropped, 0 as duplicates, case when status = 'started' then at end as at
              from fresh
            union all
            select tenant, trigger, 0, failed, dropped, duplicates, null from counted) every
     group by tenant, trigger
)
update triggers t
   set fired = t.fired + n.fired, failed = t.failed + n.failed, dropped = t.dropped + n.dropped,
       duplicates = t.duplicates + n.duplicates, last_at = greatest(t.last_at, n.at)
  from together n
 where t.tenant = n.tenant and t.name = n.trigger;

-- name: last_starts
select s.*, r.status as run_status
  from trigger_starts s left join runs r on r.id = s.run_id
 where s.tenant = $1 and s.trigger = $2
 order by s.at desc, s.scheduled_at desc nulls last, s.run_id desc
 limit $3;

-- name: forget_keys
delete from trigger_keys where (tenant, trigger, key) in
    (select tenant, trigger, key from trigger_keys where expires_at <= $1 order by expires_at limit $2);

-- name: forget_starts
-- All but the last $1 of each trigger; what may be under way stays.
delete from trigger_starts where run_id in (
    select old.run_id
      from triggers t
     cross join lateral (select run_id, open, status from trigger_starts s
                          where s.tenant = t.tenant and s.trigger = t.name
                          order by at desc offset $1 limit $2) old
     where not old.open and old.status <> 'pending');

-- name: stuck_places
-- Runs with dead letters are few, so their places are found first. $7 the parent, or null.
select r.created_at, r.id
  from runs r
 where r.id in (select run_id from stuck where tenant = $1 and not released)
   and r.tenant = $1 and r.finished_at is null and r.status = any($2::text[]) and ($7::text is null or r.parent = $7)
   and r.created_at >= $3::timestamptz and (r.created_at, r.id) < ($4::timestamptz, $5::text)
 order by r.created_at desc, r.id desc limit $6

-- name: mark_stuck
-- Of runs that are there and go on. A tick that came to nothing is the last for now.
with given as (
    select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::boolean[])
           as g(tenant, run_id, dead_letter, code, reason, since, stops_ticks)
), marked as (
    insert into stuck (tenant, run_id, dead_letter, code, reason, since, stops_ticks)
    select g.tenant, g.run_id, g.dead_letter, g.code, g.reason, g.since, g.stops_ticks
      from given g join runs r on r.id = g.run_id and r.tenant = g.tenant and r.finished_at is null
    on conflict (tenant, dead_letter) do nothing
    returning run_id, stops_ticks
)
update runs set wake_at = null
 where finished_at is null and id in (select run_id from marked where stops_ticks)

-- name: marked
select tenant, run_id, dead_letter, code, reason, since, stops_ticks
  from stuck join unnest($1::text[], $2::text[]) as g(tenant, dead_letter) using (tenant, dead_letter)
 where not released

-- name: release_stuck
-- A letter may be gone before it is marked here, so what was released is remembered for a while.
with given as (
    select * from unnest($1::text[], $2::text[], $3::text[]) as g(tenant, run_id, dead_letter)
), was as (
    select s.* from stuck s join given g using (tenant, run_id, dead_letter) where not s.released for update of s
), kept as (
    insert into stuck (tenant, run_id, dead_letter, code, reason, since, stops_ticks, released)
    select tenant, run_id, dead_letter, '', '', $4, false, true from given
    on conflict (tenant, dead_letter) do update set released = true
), woken as (
    update runs set wake_at = $4
     where wake_at is null and finished_at is null and id in (select run_id from was where stops_ticks)
), old as (
    delete from stuck where released and since < $4::timestamptz - interval '30 days'
)
select tenant, run_id, dead_letter, code, reason, since, stops_ticks from was

-- name: stuck_of
select distinct on (s.run_id) s.run_id, s.dead_letter, s.code, s.since, count(*) over (partition by s.run_id) as letters
  from stuck s join runs r on r.id = s.run_id and r.tenant = s.tenant
 where s.tenant = $1 and s.run_id = any($2::text[]) and not s.released and r.finished_at is null
 order by s.run_id, s.since, s.dead_letter;

-- name: retention_policies
-- Every tenant with ended runs, and what their workflows say (null: nothing). One look into the index for each.
with recursive policy as (
    (select tenant, coalesce(keep_s, -1) as keep_s from runs
      where finished_at is not null order by tenant, coalesce(keep_s, -1) limit 1)
    union all
    select n.tenant, n.keep_s
      from policy p cross join lateral (
           select tenant, coalesce(keep_s, -1) as keep_s from runs
            where finished_at is not null and (tenant, coalesce(keep_s, -1)) > (p.tenant, p.keep_s)
            order by tenant, coalesce(keep_s, -1) limit 1) as n
)
select tenant, nullif(keep_s, -1) as keep_s from policy;

-- name: runs_due_for_purge
-- A child stays while its parent has not ended: that might ask again how it ended, and must not begin it anew.
select id, version, finished_at from runs r
 where tenant = $1 and coalesce(keep_s, -1) = coalesce($2::float8, -1) and finished_at < $3
   and not exists (select from runs p where p.id = r.parent and p.finished_at is null)
 order by finished_at limit $4
   for update skip locked;

-- name: purge_runs
-- With all that hangs on them; labels and approvals go by themselves.
with gone as (
    delete from runs where id = any($1::text[]) returning id, tenant
), unstuck as (
    delete from stuck s using gone where s.tenant = gone.tenant and s.run_id = gone.id
)
delete from run_history where id in (select id from gone);

-- name: forget_plans
-- Plans that no run pins, that no other plan names, and that nobody has been about to pin for $1. $2: how many.
delete from plans where (tenant, digest) in (
    select tenant, digest from plans p
     where used_at < now() - $1::interval
       and not exists (select from runs r where r.plan = p.digest and r.tenant = p.tenant)
       and not exists (select from plans o where o.family @> array[p.digest] and o.tenant = p.tenant)
     limit $2);

-- name: anybody_queued
-- In the order of the index, so that it is looked up there whatever the statistics say of how many those are.
select id from runs where status = 'queued' order by tenant, workflow, (parent is null) limit 1;

-- name: lock_queue
-- One replica at a time gives slots away; the lock ends with the transaction.
select pg_try_advisory_xact_lock(7203002);

-- name: queue_heads
-- The first $1 of every line. One look into the index for each line.
with recursive line as (
    (select tenant, workflow, parent is null as root from runs
      where status = 'queued' order by tenant, workflow, (parent is null) limit 1)
    union all
    select n.tenant, n.workflow, n.root
      from line l cross join lateral (
           select tenant, workflow, parent is null as root from runs
            where status = 'queued' and (tenant, workflow, (parent is null)) > (l.tenant, l.workflow, l.root)
            order by tenant, workflow, (parent is null) limit 1) as n
)
select r.id, r.tenant, r.workflow, r.priority, r.created_at, r.max_runs, not line.root as child
  from line cross join lateral (
       select id, tenant, workflow, priority, created_at, max_runs from runs
        where status = 'queued' and tenant = line.tenant and workflow = line.workflow
          and (parent is null) = line.root and not claimed
        order by priority desc, created_at, id limit $1) as r;

-- name: running_of_workflows
-- How many runs of the workflows ($1 tenants, $2 names) have a slot: those under way, and those about to be.
select one.tenant, one.workflow,
       (select count(*) from runs r
         where r.tenant = one.tenant and r.workflow = one.workflow and (r.claimed or not r.waits)
           and r.status in ('running', 'paused', 'cancelling'))
     + (select count(*) from runs r
         where r.tenant = one.tenant and r.workflow = one.workflow and r.status = 'queued' and r.claimed) as number
  from unnest($1::text[], $2::text[]) as one(tenant, workflow);

-- name: waits_below
-- For each run that has a slot of one of the workflows ($1 tenants, $2 names): for slots of which workflows runs below it
-- wait.
with recursive holder as (
    select r.id, r.tenant, r.workflow
      from unnest($1::text[], $2::text[]) as one(tenant, workflow)
      join runs r on r.tenant = one.tenant and r.workflow = one.workflow and (r.claimed or not r.waits)
       and r.status in ('running', 'paused', 'cancelling')
    union all
    select r.id, r.tenant, r.workflow
      from unnest($1::text[], $2::text[]) as one(tenant, workflow)
      join runs r on r.tenant = one.tenant and r.workflow = one.workflow and r.status = 'queued' and r.claimed
), below as (
    select id as holder, tenant, workflow, id, null::text as waits from holder
    union all
    select b.holder, b.tenant, b.workflow, r.id, case when r.status = 'queued' and not r.claimed then r.workflow end
      from below b join runs r on r.parent = b.id and r.tenant = b.tenant and r.finished_at is null
)
select tenant, workflow, array_agg(distinct waits) filter (where waits is not null) as waits
  from below group by holder, tenant, workflow;

-- name: running_of_tenants
-- The same for the tenants $1, without children: those are part of what started them.
select one.tenant,
       (select count(*) from runs r
         where r.tenant = one.tenant and r.parent is null and (r.claimed or not r.waits)
           and r.status in ('running', 'paused', 'cancelling'))
     + (select count(*) from runs r
         where r.tenant = one.tenant and r.parent is null and r.status = 'queued' and r.claimed) as number
  from unnest($1::text[]) as one(tenant);

-- name: claim_slots
update runs set claimed = true where id = any($1::text[]) and status = 'queued' returning id;

-- name: claimed_runs
select id, tenant from runs where status = 'queued' and claimed and id <> all($2::text[])
 order by tenant, workflow limit $1;

-- name: queued_run
select id, tenant, workflow, priority, created_at, max_runs, parent is not null as child
  from runs where tenant = $1 and id = $2 and status = 'queued';

-- name: ahead_in_queue
-- How many of the line of $1 tenant, $2 workflow, $3 child come before $4 priority, $5 time, $6 id.
select count(*) from runs
 where status = 'queued' and tenant = $1 and workflow = $2 and (parent is null) = not $3 and not claimed
   and (priority > $4 or (priority = $4 and (created_at, id) < ($5::timestamptz, $6::text)));
