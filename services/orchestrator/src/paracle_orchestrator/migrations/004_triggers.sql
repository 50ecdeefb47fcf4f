-- Triggers as the registry has them, how far each has come, and the runs that they started.

-- How far this service has followed the registry, for each tenant that it knows.
create table trigger_tenants (
    tenant     text        primary key,
    version    bigint      not null,    -- the registry's count of applies that is taken in
    checked_at timestamptz not null     -- when the registry was last asked
);
create index trigger_tenants_checked on trigger_tenants (checked_at);

create table triggers (
    tenant        text        not null,
    name          text        not null,
    revision      int         not null,
    deleted       boolean     not null default false,  -- kept, so that an older revision cannot bring it back
    spec          json        not null,
    on_messages   boolean     not null,
    cursor        timestamptz not null,  -- the last time of the schedule that was dealt with
    due_at        timestamptz,           -- when to look at the clock for it; null: never
    paused        boolean     not null,
    paused_by     text,
    paused_at     timestamptz,
    paused_reason text,
    commands      json        not null default '[]',  -- ids of the last commands that changed it, with their numbers
    problem       text,
    fired         bigint      not null default 0,
    skipped       bigint      not null default 0,
    dropped       bigint      not null default 0,
    duplicates    bigint      not null default 0,
    failed        bigint      not null default 0,
    last_at       timestamptz,
    primary key (tenant, name)
) with (fillfactor = 70);
create index triggers_due on triggers (due_at) where due_at is not null;

-- What triggers started. A start is decided, and kept as pending, before it is attempted; its run's id follows from what
-- caused it, so attempting it again starts nothing twice.
create table trigger_starts (
    run_id       text        primary key,
    tenant       text        not null,
    trigger      text        not null,
    cause        text        not null,
    at           timestamptz not null,
    scheduled_at timestamptz,
    command      json,                   -- the start command, as long as it may be needed again
    cancels      text[]      not null,   -- runs to cancel first
    status       text        not null,
    error        json,
    retry_at     timestamptz,            -- when a pending one is attempted (again)
    open         boolean     not null    -- whether its run may be under way, for what must not overlap
);
create index trigger_starts_newest on trigger_starts (tenant, trigger, at desc, run_id);
create index trigger_starts_pending on trigger_starts (retry_at) where retry_at is not null;
create index trigger_starts_open on trigger_starts (tenant, trigger) where open;

-- What messages had in common with earlier ones.
create table trigger_keys (
    tenant     text        not null,
    trigger    text        not null,
    key        text        not null,
    run_id     text        not null,
    expires_at timestamptz not null,
    primary key (tenant, trigger, key)
);
create index trigger_keys_expired on trigger_keys (expires_at);
