-- Tasks that are journaled (those of agents, and of tools that change the world), their histories, and who works on them.

create table tasks (
    id          text primary key,
    tenant      text        not null,
    version     int         not null,  -- number of events
    status      text        not null,
    wake_at     timestamptz,           -- unused: tasks are woken by their mailbox
    created_at  timestamptz not null,
    finished_at timestamptz,
    run_id      text        not null,
    step        text        not null,
    attempt     int         not null,
    target_kind text        not null,
    target      text        not null,
    owner       text                   -- the worker that has it; null: nobody
) with (fillfactor = 70);              -- room for updates in place: a task's row changes with every page

create index tasks_of_run on tasks (tenant, run_id);

-- One row for each message that changed a task: the events that it led to, as a JSON array.
create table task_history (
    id     text        not null,
    seq    int         not null,       -- number of the first event of the page
    cause  text        not null,
    at     timestamptz not null,
    events json        not null,
    primary key (id, seq)
);

-- Processes of the agent runtime; one that has not been seen for a lease has lost its tasks.
create table workers (
    id      text primary key,
    seen_at timestamptz not null
);
