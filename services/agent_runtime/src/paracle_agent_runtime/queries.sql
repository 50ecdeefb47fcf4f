-- name: beat
insert into workers (id, seen_at) values ($1, now())
on conflict (id) do update set seen_at = now()

-- name: claim_task
-- A task goes to who asks unless another worker has it and was seen within the lease ($3).
update tasks t set owner = $2
 where t.id = $1
   and (t.owner is null or t.owner = $2
        or not exists (select from workers w where w.id = t.owner and w.seen_at > now() - $3::interval))
returning t.id

-- name: leave
-- Those that were killed could not do this for themselves.
delete from workers where id = $1 or seen_at < now() - interval '1 day'

-- name: attempts_before
select id from tasks where tenant = $1 and run_id = $2 and step = $3 and attempt < $4 order by attempt

-- name: drop_tasks
-- Those of the runs $2 of tenant $1, with their histories. A task that has not ended is somebody's, and stays.
with gone as (
    delete from tasks where tenant = $1 and run_id = any($2::text[]) and finished_at is not null returning id
), told as (
    delete from task_history where id in (select id from gone)
)
select count(*) from gone
