-- One row that the gateway writes again and again, to find out whether the store takes writes.
CREATE TABLE store_probes (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    number BIGINT NOT NULL,
    filler BYTEA NOT NULL
);
-- The filler is there to take up room: compressed it would take none.
ALTER TABLE store_probes ALTER COLUMN filler SET STORAGE EXTERNAL;
