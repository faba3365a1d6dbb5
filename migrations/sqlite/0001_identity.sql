-- Who calls, and for whom. Times are milliseconds since 1970.

-- What the gateway itself must remember: what tells a wrong keyring, the pepper of pass-through namespaces.
CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    sealed_value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Numbers that grow whenever something of that name changes, so that others can tell with one small read.
CREATE TABLE revisions (
    name TEXT NOT NULL PRIMARY KEY,
    number INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE projects (
    name TEXT NOT NULL PRIMARY KEY,
    -- `gateway` or `app`: how people prove who they are before a login is stored
    proof TEXT NOT NULL,
    verifier_url TEXT,
    webhook_url TEXT,
    sealed_webhook_secret BLOB,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE api_keys (
    project TEXT NOT NULL REFERENCES projects (name),
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    -- SHA-256 of the key
    hash BLOB NOT NULL UNIQUE,
    -- its last characters, for people to tell keys apart
    ending TEXT NOT NULL,
    -- separated by spaces
    scopes TEXT NOT NULL,
    requests_per_minute INTEGER,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER,
    PRIMARY KEY (project, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX api_keys_id ON api_keys (id);

-- People who signed in, by what their provider calls them.
CREATE TABLE accounts (
    id TEXT NOT NULL PRIMARY KEY,
    -- The name of the sign-in provider in the configuration.
    provider TEXT NOT NULL,
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    -- What they call themselves. Decides nothing.
    label BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    signed_in_at INTEGER NOT NULL,
    UNIQUE (issuer, subject)
) STRICT, WITHOUT ROWID;

-- Browsers in which they are signed in.
CREATE TABLE sessions (
    account TEXT NOT NULL REFERENCES accounts (id),
    id TEXT NOT NULL,
    -- SHA-256 of what the cookie holds
    hash BLOB NOT NULL UNIQUE,
    agent BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    used_at INTEGER NOT NULL,
    PRIMARY KEY (account, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_use ON sessions (used_at);

-- Sign-ins between leaving for the provider and coming back.
CREATE TABLE sign_ins (
    -- SHA-256 of OAuth's state; what else belongs to it follows from the browser's cookie
    state_hash BLOB NOT NULL PRIMARY KEY,
    provider TEXT NOT NULL,
    return_to TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sign_ins_by_end ON sign_ins (expires_at);
