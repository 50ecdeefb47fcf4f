-- What is old is looked for in the order in which it came, which is that of the table.
create index attempts_by_age on attempts using brin (ended_at);
