-- Conversations: their turns in the order in which they came, each with the messages that it added.

create table sessions (
    tenant     text        not null,
    id         text        not null,
    turns      int         not null,  -- numbers given out so far
    created_at timestamptz not null default now(),
    primary key (tenant, id)
);

create table session_turns (
    task_id    text        primary key,
    tenant     text        not null,
    session_id text        not null,
    turn       int         not null,
    run_id     text        not null,
    asked_at   timestamptz not null default now(),
    ended_at   timestamptz,                        -- null: it is under way, waits, or was stopped
    messages   json        not null default '[]',  -- none of a turn that did not complete
    unique (tenant, session_id, turn),
    foreign key (tenant, session_id) references sessions on delete cascade
);
