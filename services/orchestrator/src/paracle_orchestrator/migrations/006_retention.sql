-- Ended runs are dropped when their time is over, and plans that nothing pins any more.

-- By the policy that says how long each is kept: what is due is at the front of its policy's part. -1: its tenant's.
drop index runs_ended;
create index runs_ended on runs (tenant, coalesce(keep_s, -1), finished_at) where finished_at is not null;

create index runs_by_plan on runs (plan);

alter table plans
    add column family  text[]      not null default '{}',    -- digests of the plans that its steps may start
    add column used_at timestamptz not null default now();   -- when somebody last said that he pins it

create index plans_by_child on plans using gin (family);
