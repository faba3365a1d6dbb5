-- How often an instance has written: less than it remembers means that this database is an older copy.
ALTER TABLE instances ADD COLUMN writes BIGINT NOT NULL DEFAULT 0;

-- The database that these tables were in when they were last used, by PostgreSQL's own names for it.
CREATE TABLE database_identity (
    one BIGINT NOT NULL PRIMARY KEY,
    identity TEXT COLLATE "C" NOT NULL
);
