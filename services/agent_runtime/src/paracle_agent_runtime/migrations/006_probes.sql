-- What probes of effects in doubt came to, and the key that the tool was given where that is another run's.
alter table effects
    add column called  text,
    add column probe   json,
    add column probing boolean not null default false;  -- whether another probe is to follow
