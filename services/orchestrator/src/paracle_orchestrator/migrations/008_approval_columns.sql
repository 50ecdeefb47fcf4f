-- What lists ask of an approval stands in columns: PostgreSQL cannot look into JSON that holds the character U+0000, which
-- a question, an action or a reason may hold.
alter table approvals
    add column own     boolean not null default false,  -- whether who started the run may approve
    add column decided text[]  not null default '{}';   -- who has decided already
