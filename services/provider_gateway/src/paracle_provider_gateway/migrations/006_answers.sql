-- Answers that are kept for calls that allow it. A cache is no promise: this is not logged, so it costs no WAL, and is
-- empty after a crash of PostgreSQL.
create unlogged table answers (
    tenant     text        not null,
    question   bytea       not null, -- digest
    answer     bytea       not null,
    made_at    timestamptz not null,
    expires_at timestamptz not null,
    primary key (tenant, question)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

create index answers_by_end on answers (expires_at);

-- What a kept answer spared: an attempt that was not made, and what it had used when it was.
alter table attempts
    drop constraint attempts_outcome_check,
    add constraint attempts_outcome_check check (outcome in ('completed', 'cached', 'failed', 'cancelled', 'unknown')),
    add column saved_usd numeric, -- null: nothing, or unknown
    add column saved_tokens bigint not null default 0;
