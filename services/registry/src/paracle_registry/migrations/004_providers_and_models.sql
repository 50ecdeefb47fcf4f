-- Providers and models are manifests, too.
alter table revisions drop constraint revisions_kind_check;
alter table revisions add constraint revisions_kind_check
    check (kind in ('Agent', 'Tool', 'Workflow', 'Trigger', 'Provider', 'Model'));
