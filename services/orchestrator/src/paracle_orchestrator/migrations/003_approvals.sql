-- What people are asked, as lists show it. The truth is each run's history: a row is what a run said of an approval when
-- it had so many events, and what it said last is right.
create table approvals (
    id           text primary key,
    tenant       text        not null,
    run_id       text        not null references runs on delete cascade,
    version      int         not null,  -- number of the run's events when it said so
    workflow     text        not null,
    status       text        not null,
    open         boolean     not null generated always as (status = 'open') stored,
    asked_at     timestamptz not null,
    requested_by text        not null,
    principals   text[]      not null,
    roles        text[]      not null,
    document     json        not null
);

-- In the order of lists: of all, and of those that stand so, or are of one workflow.
create index approvals_listed on approvals (tenant, open, asked_at, id);
create index approvals_by_status on approvals (tenant, status, open, asked_at, id);
create index approvals_by_workflow on approvals (tenant, workflow, open, asked_at, id);
create index approvals_of_run on approvals (run_id);
