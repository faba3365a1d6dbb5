-- Work is shared out by the host it goes to, so that a slow one cannot take all places.
ALTER TABLE outbox ADD COLUMN host TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE revocations ADD COLUMN host TEXT COLLATE "C" NOT NULL DEFAULT '';

-- Whose tokens they were, for the audit log.
ALTER TABLE revocations ADD COLUMN profile BYTEA;
ALTER TABLE revocations ADD COLUMN resource TEXT COLLATE "C";

-- What is old is found without reading everything.
CREATE INDEX audit_by_age ON audit (at);
CREATE INDEX outbox_by_age ON outbox (created_at);
CREATE INDEX revocations_by_age ON revocations (changed_at);
CREATE INDEX flow_batches_by_end ON flow_batches (expires_at);
