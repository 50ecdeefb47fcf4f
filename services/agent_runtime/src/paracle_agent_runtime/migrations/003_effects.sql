-- Effects of all tasks, as lists show them: what a task said of each, and what people found out about those in doubt.
-- The truth of the first is the tasks' histories; the second stands here alone, and in the audit log.
create table effects (
    tenant           text        not null,
    key              text        not null,
    run_id           text        not null,
    step             text        not null,
    attempt          int         not null,
    task_id          text        not null,
    call_id          text        not null,
    seq              int         not null,  -- the number of the task's event that says so
    sent             boolean     not null,  -- whether that task has called the tool
    scope            text        not null,
    tool             text        not null,
    revision         int         not null,
    effect           text        not null,
    arguments_digest text        not null,
    state            text        not null,
    reason           json,                  -- JSON, since it may hold the character U+0000
    intended_at      timestamptz not null,
    changed_at       timestamptz not null,
    resolution       json,
    resolved         int         not null default 0,  -- how often it was resolved
    primary key (tenant, key)
) with (fillfactor = 70);

-- In the order of lists; those of one state, and of one run.
create index effects_listed on effects (tenant, intended_at, key);
create index effects_open on effects (tenant, state, intended_at, key) where state in ('in_doubt', 'resolved');
create index effects_of_run on effects (tenant, run_id);
create index effects_of_task on effects (task_id);
