-- Events that were decided together come as one message, and are one row: those from `first_seq` to `seq`. `type` is that
-- of the last one.

alter table event add column first_seq bigint;
update event set first_seq = seq;
alter table event alter column first_seq set not null;
