-- What a process has had in hand for long of which there is no other trace: tasks that change nothing, each as tenant/task.
alter table workers add column at_work text[] not null default '{}';
