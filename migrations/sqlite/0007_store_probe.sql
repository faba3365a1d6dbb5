-- One row that the gateway writes again and again, to find out whether the store takes writes.
CREATE TABLE store_probes (
    name TEXT NOT NULL PRIMARY KEY,
    number INTEGER NOT NULL,
    filler BLOB NOT NULL
) STRICT;
