-- Budgets, what is counted on them, and the ledger of every attempt to get an answer of a model.

-- Counts the changes of a tenant's budgets: replicas have those in memory, and see here whether they know the newest.
create table books (
    tenant   text   primary key,
    revision bigint not null
);

create table budgets (
    tenant   text        not null,
    name     text        not null,
    spec     jsonb       not null,
    born     bigint      not null, -- revision of the book at which it was set first: one that is set anew counts anew
    revision integer     not null,
    set_by   text        not null,
    set_at   timestamptz not null,
    primary key (tenant, name)
);

-- What was spent and what is reserved of a budget, for one subject in one window. The id follows from the rest.
create table counters (
    id              uuid    primary key,
    tenant          text    not null,
    budget          text    not null,
    born            bigint  not null,
    subject         text    not null,
    period          text    not null,
    spent_usd       numeric not null default 0,
    reserved_usd    numeric not null default 0,
    raised_usd      numeric not null default 0,
    spent_tokens    bigint  not null default 0,
    reserved_tokens bigint  not null default 0,
    raised_tokens   bigint  not null default 0,
    calls           bigint  not null default 0,
    unpriced_calls  bigint  not null default 0,
    hit_at          timestamptz
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

create index counters_of_budget on counters (tenant, budget, period, subject);

-- Each raise counts once, however often it is asked for.
create table raises (
    tenant text        not null,
    budget text        not null,
    key    text        not null,
    at     timestamptz not null,
    primary key (tenant, budget, key)
);

-- What deployments with shared limits are asked by all replicas: now, in this minute, and in the one before.
create table loads (
    deployment text    primary key,
    in_air     integer not null default 0,
    minute     bigint  not null default 0,
    requests   bigint  not null default 0,
    tokens     bigint  not null default 0,
    requests_before bigint not null default 0,
    tokens_before   bigint not null default 0
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- Attempts in the air, with what they hold of counters and deployments.
create table open_attempts (
    tenant          text        not null,
    call_id         text        not null,
    serial          bigint      not null, -- tells it from all other attempts of the call, earlier ones of a repetition included
    number          integer     not null,
    replica         text        not null,
    project         text,
    principal       text,
    agent           text,
    run_id          text,
    task_id         text,
    parent_task_id  text,
    step            text,
    provider        text        not null,
    model           text        not null,
    deployment      text, -- key in `loads`; null: it shares no limits
    reserved_usd    numeric, -- null: its price is unknown
    reserved_tokens bigint      not null,
    counters        uuid[]      not null,
    opened_at       timestamptz not null,
    primary key (tenant, call_id, serial)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- The ledger: attempts that have ended.
create table attempts (
    tenant           text        not null,
    call_id          text        not null,
    serial           bigint      not null,
    number           integer     not null,
    replica          text        not null,
    project          text,
    principal        text,
    agent            text,
    run_id           text,
    task_id          text,
    parent_task_id   text,
    step             text,
    provider         text        not null,
    model            text        not null, -- as the provider calls what answered; as it was asked for, if nothing did
    outcome          text        not null check (outcome in ('completed', 'failed', 'cancelled', 'unknown')),
    error            text, -- code
    input_tokens     bigint      not null default 0,
    output_tokens    bigint      not null default 0,
    cached_tokens    bigint      not null default 0,
    reasoning_tokens bigint      not null default 0,
    cost_usd         numeric, -- null: unknown, which is not zero
    reserved_usd     numeric,
    reserved_tokens  bigint      not null,
    counted_usd      numeric     not null, -- what budgets were charged: the cost, or what it may have been
    counted_tokens   bigint      not null,
    counters         uuid[], -- of an unknown outcome, until it is known
    opened_at        timestamptz not null,
    ended_at         timestamptz not null,
    latency_s        double precision,
    first_token_s    double precision,
    primary key (call_id, tenant, serial)
);

create index attempts_by_time on attempts (tenant, ended_at);
create index attempts_of_run on attempts (tenant, run_id) where run_id is not null;

-- The outbox: what happened to budgets, for the audit log.
create table budget_events (
    tenant    text        not null,
    budget    text        not null,
    seq       bigint      not null,
    type      text        not null,
    principal text        not null,
    at        timestamptz not null,
    data      jsonb       not null,
    published boolean     not null default false,
    primary key (tenant, budget, seq)
);

create index budget_events_unpublished on budget_events (at) where not published;
