-- Every revision of every manifest, for ever. `manifest` is json, not jsonb: it keeps the order that its author chose.
create table revisions (
    tenant     text        not null,
    kind       text        not null check (kind in ('Agent', 'Tool', 'Workflow')),
    name       text        not null,
    revision   integer     not null check (revision > 0),
    manifest   json        not null,
    digest     text        not null,
    author     text        not null,
    created_at timestamptz not null,
    version    bigint      not null, -- counts the tenant's applies; all revisions of one apply share it
    published  boolean     not null default false,
    primary key (tenant, kind, name, revision)
);

create index revisions_by_version on revisions (tenant, version);

-- The outbox: revisions whose events may not be out yet.
create index revisions_unpublished on revisions (created_at) where not published;
