-- Worker pools: what each process says of those that it serves, and which are not to take anything new.
alter table workers add column report json;

create table pool_drains (
    pool      text primary key,
    number    int  not null,  -- how often it was drained and resumed
    since     timestamptz,    -- null: it is resumed
    principal text not null,
    reason    text not null
);
