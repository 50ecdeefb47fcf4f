-- Runs that were there before `run_labels` was: nothing had put their labels into it.
insert into run_labels (tenant, label, status, workflow, created_at, id)
select r.tenant, run_label(given.key, given.value), r.status, r.workflow, r.created_at, r.id
  from runs r cross join lateral json_each_text(r.labels) as given
 where r.labels::text <> '{}'
    on conflict do nothing;
