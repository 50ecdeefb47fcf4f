-- A turn that was handed out again lies in its pool's queue, and stays here until it has begun. If nobody takes it there,
-- since the pool is drained, it is not to be handed out again and again.
alter table turns_aside add column called boolean not null default false;
