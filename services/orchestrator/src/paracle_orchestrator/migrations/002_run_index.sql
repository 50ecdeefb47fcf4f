-- Lists of runs, by whatever people look for. A page has to be found by reading about as many entries as it shows,
-- however many runs there are and however rare the match, so each index ends in the order of lists. Statuses are few
-- and known: a list of all of them is merged from one scan for each.
--
-- What is updated with each page of events (version, wake_at) is in none of these, so such updates stay in place
-- (HOT): a run's entries are written when it starts and when its status changes. For that a page needs room for
-- another version of each of its rows, since runs that start together move on together.

alter table runs set (fillfactor = 50);
alter table runs
    add column priority    int not null default 0,
    add column parent      text,              -- the run that started it as a child
    add column forked_from text,
    add column keep_s      double precision;  -- what its workflow says of retention; null: as its tenant's runs are kept

drop index runs_newest;
create index runs_by_status on runs (tenant, status, created_at, id);
create index runs_by_workflow on runs (tenant, workflow, status, created_at, id);
create index runs_by_parent on runs (parent, created_at, id) where parent is not null;

-- Ended runs, by the policy that says how long each is kept: what is due is at the front of its policy's part.
create index runs_ended on runs (tenant, keep_s, finished_at) where finished_at is not null;

-- One row for each label of a run; runs without labels have none, and cost nothing. A label is a hash, so that its
-- length does not matter; whoever reads looks at the run's own labels too.
create table run_labels (
    tenant     text        not null,
    label      bigint      not null,
    status     text        not null,
    workflow   text        not null,
    created_at timestamptz not null,
    id         text        not null,
    primary key (tenant, label, status, created_at, id)
);
create index run_labels_by_workflow on run_labels (tenant, label, workflow, status, created_at, id);

create function run_label(key text, value text) returns bigint immutable strict parallel safe
    return hashtextextended(key || '=' || value, 0);

-- Triggers keep them in step: within the same commit, and only for runs that have labels.
create function run_labels_follow() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        insert into run_labels (tenant, label, status, workflow, created_at, id)
        select new.tenant, run_label(key, value), new.status, new.workflow, new.created_at, new.id
          from json_each_text(new.labels)
            on conflict do nothing;
    elsif tg_op = 'UPDATE' then
        update run_labels l set status = new.status
          from json_each_text(new.labels) as given
         where l.tenant = old.tenant and l.label = run_label(given.key, given.value) and l.status = old.status
           and l.created_at = old.created_at and l.id = old.id;
    else
        delete from run_labels l using json_each_text(old.labels) as given
         where l.tenant = old.tenant and l.label = run_label(given.key, given.value) and l.status = old.status
           and l.created_at = old.created_at and l.id = old.id;
    end if;
    return null;
end $$;

create trigger run_labelled after insert on runs
    for each row when (new.labels::text <> '{}') execute function run_labels_follow();
create trigger run_labels_moved after update of status on runs
    for each row when (old.status <> new.status and new.labels::text <> '{}') execute function run_labels_follow();
create trigger run_labels_gone after delete on runs
    for each row when (old.labels::text <> '{}') execute function run_labels_follow();
