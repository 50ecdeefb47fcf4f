-- Turns that wait for others, with the message that brought each. Nobody has them in hand: however many wait, the mailbox
-- of their pool is free for everybody else's tasks.
create table turns_aside (
    task_id    text primary key,
    tenant     text not null,
    session_id text not null,
    run_id     text not null,
    turn       int,            -- its number, if it has entered its session: it waits for all lower ones
    after_run  text,           -- else the run that has to enter before it
    pool       text not null,
    headers    json not null,
    task       json not null,
    check ((turn is null) <> (after_run is null))
);
create index turns_aside_in_order on turns_aside (tenant, session_id, turn) where turn is not null;
create index turns_aside_after on turns_aside (tenant, after_run) where after_run is not null;
create index turns_aside_of_run on turns_aside (tenant, run_id);

-- What a turn waits for is looked for among those that have not ended, however long the conversation has grown.
create index session_turns_open on session_turns (tenant, session_id, turn) where ended_at is null;
