-- What was told lately is told again after NATS was away.
create index revisions_by_time on revisions (created_at);
