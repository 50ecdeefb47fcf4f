-- How far observability has asked the owner of each kind of entity which histories there are.
create table asked (
    entity text primary key,
    until  timestamptz not null
);
