-- Whoever keeps a copy of all histories asks which runs began of late, of all tenants. BRIN: one entry for a range of
-- pages instead of one for each run, and it does not keep updates from staying in place.
create index runs_by_age on runs using brin (created_at) with (pages_per_range = 16, autosummarize = on);
