-- How many applies of the tenant `manifests` hold: replicas keep what they know in any order, and an older state is not to replace a
-- newer one.
alter table setups add column version bigint not null default 0;
