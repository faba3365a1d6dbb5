-- How often an instance has written: less than it remembers means that this database is an older copy.
ALTER TABLE instances ADD COLUMN writes INTEGER NOT NULL DEFAULT 0;

-- The database that these tables were in when they were last used, by PostgreSQL's own names for it.
CREATE TABLE database_identity (
    one INTEGER NOT NULL PRIMARY KEY,
    identity TEXT NOT NULL
) STRICT, WITHOUT ROWID;
