-- Histories of which something is missing that nobody knows any more: nobody is asked for it again.
alter table history add column lost boolean not null default false;

drop index history_with_gap;
drop index history_open;
create index history_with_gap on history (check_at) where stored < last_seq and not lost;
create index history_open on history (check_at) where entity in ('run', 'task') and not closed and not lost;
create index history_lost on history (tenant) where lost;
