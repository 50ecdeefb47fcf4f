-- Runs, their histories, and the plans that they pinned.

create table runs (
    id          text primary key,
    tenant      text        not null,
    version     int         not null,  -- number of events
    status      text        not null,
    wake_at     timestamptz,           -- when it wants a tick; null: never
    created_at  timestamptz not null,
    finished_at timestamptz,
    workflow    text        not null,
    revision    int         not null,
    plan        text        not null,
    principal   text        not null,
    request     text        not null,  -- digest of the start command: the same id with another request is a conflict
    labels      json        not null
) with (fillfactor = 70);              -- room for updates in place: a run's row changes with every page

create index runs_due on runs (wake_at) where wake_at is not null;
create index runs_newest on runs (tenant, created_at desc, id desc);

-- One row for each message that changed a run: the events that it led to, as a JSON array.
create table run_history (
    id     text        not null,
    seq    int         not null,       -- number of the first event of the page
    cause  text        not null,
    at     timestamptz not null,
    events json        not null,
    primary key (id, seq)
);

create table plans (
    tenant     text        not null,
    digest     text        not null,
    document   json        not null,
    created_at timestamptz not null default now(),
    primary key (tenant, digest)
);
