-- Turns of sessions go in the order in which their runs were accepted, which clocks of replicas cannot tell: whoever was
-- answered before another one asked has the lower place. Runs that are no turns have none, and cost nothing.
create sequence session_places;

alter table runs
    add column session       text,
    add column session_place bigint;

create function run_takes_its_place() returns trigger language plpgsql as $$
begin
    new.session_place := nextval('session_places');
    return new;
end $$;

create trigger run_in_session before insert on runs
    for each row when (new.session is not null) execute function run_takes_its_place();

create index runs_in_sessions on runs (tenant, session, session_place) where session is not null and finished_at is null;
