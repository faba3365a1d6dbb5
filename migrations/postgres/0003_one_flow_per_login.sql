-- SHA-256 of what makes two wishes for a login the same. One flow at most has it: the one that all who wish so join.
ALTER TABLE flows ADD COLUMN join_hash BYTEA;
CREATE UNIQUE INDEX flows_by_join ON flows (join_hash);
