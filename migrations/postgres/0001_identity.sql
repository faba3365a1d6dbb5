-- Who calls, and for whom. Times are milliseconds since 1970.

-- What the gateway itself must remember: what tells a wrong keyring, the pepper of pass-through namespaces.
CREATE TABLE meta (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    sealed_value BYTEA NOT NULL
);

-- Numbers that grow whenever something of that name changes, so that others can tell with one small read.
CREATE TABLE revisions (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    number BIGINT NOT NULL
);

CREATE TABLE projects (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    -- `gateway` or `app`: how people prove who they are before a login is stored
    proof TEXT COLLATE "C" NOT NULL,
    verifier_url TEXT,
    webhook_url TEXT,
    sealed_webhook_secret BYTEA,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE api_keys (
    project TEXT COLLATE "C" NOT NULL REFERENCES projects (name),
    id TEXT COLLATE "C" NOT NULL,
    name TEXT NOT NULL,
    -- SHA-256 of the key
    hash BYTEA NOT NULL UNIQUE,
    -- its last characters, for people to tell keys apart
    ending TEXT NOT NULL,
    -- separated by spaces
    scopes TEXT NOT NULL,
    requests_per_minute BIGINT,
    created_at BIGINT NOT NULL,
    revoked_at BIGINT,
    PRIMARY KEY (project, id)
);
CREATE UNIQUE INDEX api_keys_id ON api_keys (id);
