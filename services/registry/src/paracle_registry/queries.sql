-- name: lock_tenant
-- One apply of a tenant at a time, until its transaction ends.
select pg_advisory_xact_lock(hashtextextended('paracle.registry.' || $1, 0));

-- name: changes
-- The newest revision of everything that changed after version $2.
select * from (
    select distinct on (kind, name) kind, name, revision, manifest::text, digest, author, created_at, version, deleted
      from revisions
     where tenant = $1 and version > $2
     order by kind, name, revision desc
) newest
order by version, kind, name;

-- name: get
select kind, name, revision, manifest::text, digest, author, created_at, version, deleted
  from revisions
 where tenant = $1 and kind = $2 and name = $3 and revision = $4;

-- name: history
select kind, name, revision, manifest::text, digest, author, created_at, version, deleted
  from revisions
 where tenant = $1 and kind = $2 and name = $3 and ($4::integer is null or revision < $4)
 order by revision desc
 limit $5;

-- name: add
insert into revisions (tenant, kind, name, revision, manifest, digest, author, created_at, version, deleted)
select $1, kind, name, revision, manifest::json, digest, author, created_at, version, deleted
  from unnest($2::text[], $3::text[], $4::integer[], $5::text[], $6::text[], $7::text[], $8::timestamptz[], $9::bigint[],
              $10::boolean[])
    as new (kind, name, revision, manifest, digest, author, created_at, version, deleted);

-- name: unpublished
select tenant, kind, name, revision, manifest::text, digest, author, created_at, version, deleted
  from revisions
 where not published
 order by created_at, tenant, version, kind, name
 limit $1;

-- name: mark_published
update revisions r
   set published = true
  from unnest($1::text[], $2::text[], $3::text[], $4::integer[]) as told (tenant, kind, name, revision)
 where (r.tenant, r.kind, r.name, r.revision) = (told.tenant, told.kind, told.name, told.revision);

-- name: mark_unpublished
update revisions set published = false where published and created_at >= $1;
