-- Dead letters, whole: their stream delivers them here, and they stay until somebody redrives or drops them, whatever
-- becomes of the stream. What became of one that is gone is the event of entity 'dead_letter' with its id.
create table dead_letter (
    tenant text not null,
    id text not null,
    at timestamptz not null,
    service text not null,
    code text not null,
    run_id text,
    place bigint not null,      -- its number in the stream
    told boolean not null,      -- its run knows of the failure already
    about json not null,        -- what lists show
    headers json not null,      -- those of the message, as they came
    body bytea not null,
    primary key (tenant, id)
);

create index dead_letter_in_time on dead_letter (tenant, at, id);
create index dead_letter_of_run on dead_letter (tenant, run_id) where run_id is not null;
create index dead_letter_by_age on dead_letter (at);
