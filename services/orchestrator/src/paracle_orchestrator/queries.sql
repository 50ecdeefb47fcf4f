-- name: put_plan
-- The same digest is the same plan, so a second writer has nothing to add.
insert into plans (tenant, digest, document) values ($1, $2, $3::text::json) on conflict do nothing;

-- name: get_plan
select document::text from plans where tenant = $1 and digest = $2;

-- name: list_runs
-- Newest first; $4 and $5 are the place of the last run of the page before.
select id, workflow, revision, status, created_at, finished_at, labels::text, plan
  from runs
 where tenant = $1
   and ($2::text is null or workflow = $2)
   and ($3::text is null or status = $3)
   and ($4::timestamptz is null or (created_at, id) < ($4, $5::text))
 order by created_at desc, id desc
 limit $6;
