-- An index that looking up a call cannot use: as long as a new database has no statistics, PostgreSQL took the one of
-- (tenant, ended_at) for it, and read all attempts of the tenant for every call of a batch.
drop index attempts_by_time;
create index attempts_by_time on attempts (tenant, ended_at) where ended_at is not null;
