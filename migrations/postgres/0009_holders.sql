-- Whose runs these are, as far as there are bounds for what one principal stores, and how much room they take. An empty
-- group is not counted.
ALTER TABLE runs ADD COLUMN holder_group TEXT NOT NULL DEFAULT '';
ALTER TABLE runs ADD COLUMN holder_member TEXT NOT NULL DEFAULT '';
-- Bytes of what was asked and of all events.
ALTER TABLE runs ADD COLUMN bytes BIGINT NOT NULL DEFAULT 0;
UPDATE runs SET
    holder_group = CASE
        WHEN project LIKE 'project:%' THEN project
        WHEN project = 'person' THEN 'person:' || convert_from(user_name, 'UTF8')
        ELSE '' END,
    bytes = octet_length(metadata) + octet_length(request) + octet_length(state) + COALESCE((
        SELECT SUM(octet_length(e.events)) FROM run_events e WHERE e.project = runs.project AND e.run = runs.id), 0);
CREATE INDEX runs_by_holder ON runs (holder_group, holder_member, bytes) WHERE holder_group <> '';
