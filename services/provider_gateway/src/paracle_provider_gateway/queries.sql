-- name: seen
-- This replica is alive, by the clock of PostgreSQL, which all of them share.
insert into replicas (id, seen_at) values ($1, now()) on conflict (id) do update set seen_at = excluded.seen_at;

-- name: gone
delete from replicas where id = $1;
