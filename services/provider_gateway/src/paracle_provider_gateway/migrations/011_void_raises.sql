-- Whether what was agreed to came to nothing, since the budget was another by then. Then it stays so.
alter table raises add column void boolean not null default false;
