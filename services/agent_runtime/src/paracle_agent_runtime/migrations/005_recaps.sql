-- Summaries of conversations that grew long: models are told them instead of what was said first, which is kept all the same.

alter table session_turns add column tokens int;  -- how long the conversation was at its end, as the provider counted

create table session_recaps (
    tenant     text        not null,
    session_id text        not null,
    made_in    int         not null,            -- the turn in which it was made
    from_turn  int         not null,            -- it stands for all turns before this one
    question   int         not null default 0,  -- and of this one for all messages before number `resume`, but this one
    resume     int         not null default 0,
    summary    text        not null,
    model      text        not null,
    made_at    timestamptz not null default now(),
    primary key (tenant, session_id, made_in),
    foreign key (tenant, session_id) references sessions on delete cascade
);
