-- What is told of entities goes when their time is over: the longest silent are at the front of their tenant's part.
create index history_by_age on history (tenant, touched_at);
