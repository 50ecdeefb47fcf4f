-- The audit log and what is projected from it.

-- Every event, once: an event is its entity and its number there, so publishing it again changes nothing.
-- `body` is the record as it was published, byte for byte; cast it to jsonb to look inside.
create table event (
    position bigint generated always as identity,
    tenant text not null,
    entity text not null,
    id text not null,
    seq bigint not null,
    type text not null,
    subject text not null,
    run_id text,
    principal text not null,
    time timestamptz not null,
    body text not null,
    primary key (tenant, entity, id, seq)
);

-- Inserts dominate, so there are no more indexes than these:
--   the primary key        rejects duplicates, and is the history of one entity;
--   event_of_run           the audit of a run with everything that it caused, in order, for paging;
--   event_by_position      for the sweeper, which reads what is new. BRIN: one entry per 128 pages instead of one
--                          per row, and the table is in the order of positions anyway.
create index event_of_run on event (tenant, run_id, position) where run_id is not null;
create index event_by_position on event using brin (position) with (autosummarize = on);

-- What the calls of one model for one task used, and its tool calls (provider and model empty). The sum of known
-- costs, and how many calls had no known price: unknown is never counted as zero.
create table usage (
    tenant text not null,
    run_id text not null,
    task_id text not null,
    provider text not null,
    model text not null,
    agent text,
    step text,
    model_calls bigint not null,
    tool_calls bigint not null,
    input_tokens bigint not null,
    output_tokens bigint not null,
    cached_tokens bigint not null,
    reasoning_tokens bigint not null,
    known_cost_usd numeric not null,
    unpriced_calls bigint not null,
    primary key (tenant, run_id, task_id, provider, model)
) with (fillfactor = 70);

-- How complete each entity's history is: `stored` events of which the newest has number `last_seq`; a gap where the
-- two differ. Kept by the sweeper, off the path of inserts. `closed`: its last event was seen.
create table history (
    tenant text not null,
    entity text not null,
    id text not null,
    stored bigint not null,
    last_seq bigint not null,
    closed boolean not null,
    touched_at timestamptz not null,
    check_at timestamptz not null,
    checks int not null default 0,
    primary key (tenant, entity, id)
) with (fillfactor = 70);

create index history_with_gap on history (check_at) where stored < last_seq;
create index history_open_run on history (check_at) where entity = 'run' and not closed;

-- How far the sweeper has counted.
create table sweep (
    only_row boolean primary key default true check (only_row),
    position bigint not null
);
insert into sweep (position) values (0);
