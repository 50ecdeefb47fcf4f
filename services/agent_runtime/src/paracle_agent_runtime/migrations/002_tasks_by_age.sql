-- Whoever keeps a copy of all histories asks which tasks began of late, of all tenants. BRIN: one entry for a range of
-- pages instead of one for each task, and it does not keep updates from staying in place.
create index tasks_by_age on tasks using brin (created_at) with (pages_per_range = 16, autosummarize = on);
