-- Which processes of the gateway are alive: what one that died had under way is closed by the others.
create table replicas (
    id      text        primary key,
    seen_at timestamptz not null
) with (fillfactor = 50);
