-- Tasks end like runs, so one that fell silent before its end may miss its last events too.

update history h set closed = true
 where entity = 'task' and not closed
   and exists (select from event e
                where e.tenant = h.tenant and e.entity = h.entity and e.id = h.id
                  and e.type in ('task.completed', 'task.failed', 'task.cancelled', 'task.timed_out'));

drop index history_open_run;
create index history_open on history (check_at) where entity in ('run', 'task') and not closed;
