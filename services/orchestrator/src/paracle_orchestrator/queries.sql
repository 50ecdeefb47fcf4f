-- name: put_plan
-- The same digest is the same plan, so a second writer has nothing to add.
insert into plans (tenant, digest, document) values ($1, $2, $3::text::json) on conflict do nothing;

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
insert into approvals (id, tenant, run_id, version, workflow, status, asked_at, requested_by, principals, roles, document)
select g.id, g.tenant, g.run_id, g.version, g.workflow, g.status, g.asked_at, g.requested_by,
       array(select json_array_elements_text(g.document::json -> 'principals')),
       array(select json_array_elements_text(g.document::json -> 'roles')), g.document::json
  from unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::text[], $6::text[], $7::timestamptz[], $8::text[],
              $9::text[])
       as g(id, tenant, run_id, version, workflow, status, asked_at, requested_by, document)
  join runs r on r.id = g.run_id and r.tenant = g.tenant
 order by g.id
    on conflict (id) do update
   set version = excluded.version, status = excluded.status, principals = excluded.principals, roles = excluded.roles,
       document = excluded.document
 where approvals.version < excluded.version;

-- name: get_approval
select document::text from approvals where tenant = $1 and id = $2;

-- name: list_approvals
-- Open ones first, then the newest. $2 status, $3 run, $4 workflow, $5 whoever is named or has the role; $6 and $7: a
-- principal and his roles, for what he may decide; $8 to $10: the place of the last one of the page before.
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
        and (requested_by <> $6 or (document ->> 'own')::boolean)
        and not exists (select from json_array_elements(document -> 'decisions') d where d ->> 'principal' = $6)))
   and ($8::boolean is null or (open, asked_at, id) < ($8, $9::timestamptz, $10::text))
 order by open desc, asked_at desc, id desc
 limit $11;
