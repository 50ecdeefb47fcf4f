-- Triggers are manifests, too; and a manifest that is taken out gets a last revision that says so.
alter table revisions drop constraint revisions_kind_check;
alter table revisions add constraint revisions_kind_check check (kind in ('Agent', 'Tool', 'Workflow', 'Trigger'));
alter table revisions add column deleted boolean not null default false;
