-- What each tenant had set up when the registry was heard last: for a gateway that starts while the registry is away. Manifests
-- name keys, and hold none.
create table setups (
    tenant    text        primary key,
    manifests json        not null,
    kept_at   timestamptz not null
);
