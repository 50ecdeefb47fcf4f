-- Runs that wait for a slot, where a limit is set: of a workflow (`max_runs`), or of a tenant.

alter table runs
    add column max_runs int,                             -- what its workflow says: most running runs of it
    add column waits    boolean not null default false,  -- it began queued
    add column claimed  boolean not null default false;  -- it has a slot; what is claimed is told so until it runs

-- The lines: of each workflow one for runs of their own, and one for children, which others wait for.
create index runs_queued on runs (tenant, workflow, (parent is null), priority desc, created_at, id)
    where status = 'queued';
create index runs_claimed on runs (tenant, workflow) where status = 'queued' and claimed;
