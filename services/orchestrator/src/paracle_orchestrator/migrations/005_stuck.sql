-- Dead letters that runs wait for. A table of its own: the rows of runs change with every page, and this hardly ever does.
create table stuck (
    tenant      text        not null,
    dead_letter text        not null,
    run_id      text        not null,
    code        text        not null,
    reason      text        not null,
    since       timestamptz not null,
    stops_ticks boolean     not null,               -- it was a tick: the run gets no more until it is gone
    released    boolean     not null default false, -- it is gone; a mark that comes late changes nothing
    primary key (tenant, dead_letter)
);

create index stuck_of_run on stuck (tenant, run_id) where not released;
create index stuck_released on stuck (since) where released;
