-- name: seen
-- This replica is alive, by the clock of PostgreSQL, which all of them share.
insert into replicas (id, seen_at) values ($1, now()) on conflict (id) do update set seen_at = excluded.seen_at;

-- name: gone
delete from replicas where id = $1;

-- name: page
-- The tenant's budgets, with the revision of its book; one row without a spec if it has none.
select coalesce(k.revision, 0) as revision, b.spec::text, b.born
  from (select $1::text as tenant) t left join books k using (tenant) left join budgets b using (tenant);

-- name: open_batch
select * from open_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
                         $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37);

-- name: settle_batch
select settle_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18);

-- name: correct_batch
select correct_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16);

-- name: close_call
select close_orphans(1000, $1, $2, $3);

-- name: forget_replicas
-- A replica says every five seconds that it is there, as long as PostgreSQL is there to be told.
delete from replicas
 where seen_at < now() - interval '20 seconds' and pg_postmaster_start_time() < now() - interval '20 seconds';

-- name: close_orphans
select close_orphans($1);
