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

-- People who signed in, by what their provider calls them.
CREATE TABLE accounts (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    -- The name of the sign-in provider in the configuration.
    provider TEXT COLLATE "C" NOT NULL,
    issuer TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    -- What they call themselves. Decides nothing.
    label BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    signed_in_at BIGINT NOT NULL,
    UNIQUE (issuer, subject)
);

-- Browsers in which they are signed in.
CREATE TABLE sessions (
    account TEXT COLLATE "C" NOT NULL REFERENCES accounts (id),
    id TEXT COLLATE "C" NOT NULL,
    -- SHA-256 of what the cookie holds
    hash BYTEA NOT NULL UNIQUE,
    agent BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    used_at BIGINT NOT NULL,
    PRIMARY KEY (account, id)
);
CREATE INDEX sessions_by_use ON sessions (used_at);

-- Sign-ins between leaving for the provider and coming back.
CREATE TABLE sign_ins (
    -- SHA-256 of OAuth's state; what else belongs to it follows from the browser's cookie
    state_hash BYTEA NOT NULL PRIMARY KEY,
    provider TEXT COLLATE "C" NOT NULL,
    return_to TEXT COLLATE "C" NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX sign_ins_by_end ON sign_ins (expires_at);
