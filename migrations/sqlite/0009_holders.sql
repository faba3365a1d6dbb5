-- Whose runs these are, as far as there are bounds for what one principal stores, and how much room they take. An empty
-- group is not counted.
ALTER TABLE runs ADD COLUMN holder_group TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN holder_member TEXT NOT NULL DEFAULT '';
-- Bytes of what was asked and of all events.
ALTER TABLE runs ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
UPDATE runs SET
    holder_group = CASE
        WHEN project LIKE 'project:%' THEN project
        WHEN project = 'person' THEN 'person:' || CAST(user_name AS TEXT)
        ELSE '' END,
    bytes = length(metadata) + length(request) + length(state) + COALESCE((
        SELECT SUM(length(e.events)) FROM run_events e WHERE e.project = runs.project AND e.run = runs.id), 0);
CREATE INDEX runs_by_holder ON runs (holder_group, holder_member, bytes) WHERE holder_group <> '';
