-- A user's stored authorisation at one protected resource.
CREATE TABLE connections (
    project TEXT NOT NULL,
    id TEXT NOT NULL,
    user_name BLOB NOT NULL,
    profile BLOB NOT NULL,
    -- As the metadata writes it, to the letter.
    resource TEXT NOT NULL,
    issuer TEXT NOT NULL,
    client_id TEXT NOT NULL,
    scopes TEXT NOT NULL,
    -- Who the user is at the resource, where it says so.
    account BLOB,
    -- The application that asked.
    application BLOB NOT NULL,
    -- JSON: the endpoints and how the client proves itself there.
    endpoints BLOB NOT NULL,
    -- active, needs_reauth, revoked
    status TEXT NOT NULL,
    reason TEXT,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    last_used_at INTEGER NOT NULL,
    PRIMARY KEY (project, id)
) STRICT;
CREATE INDEX connections_by_owner ON connections (project, user_name, profile);
CREATE UNIQUE INDEX connections_in_use ON connections (project, user_name, profile, resource)
    WHERE status <> 'revoked';
CREATE INDEX connections_by_change ON connections (changed_at);
CREATE INDEX connections_by_use ON connections (status, last_used_at);

-- Its tokens, and the right to renew them.
CREATE TABLE connection_secrets (
    project TEXT NOT NULL,
    connection TEXT NOT NULL,
    generation INTEGER NOT NULL,
    sealed_access BLOB NOT NULL,
    sealed_refresh BLOB,
    issued_at INTEGER NOT NULL,
    expires_at INTEGER,
    lease_owner TEXT,
    lease_until INTEGER NOT NULL DEFAULT 0,
    attempt_started_at INTEGER,
    failures INTEGER NOT NULL DEFAULT 0,
    retry_at INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (project, connection)
) STRICT;

-- A pending authorisation: from link to stored connection.
CREATE TABLE flows (
    project TEXT NOT NULL,
    id TEXT NOT NULL,
    -- SHA-256 of what stands in the link, and the link itself, sealed, to show it again.
    link_hash BLOB NOT NULL,
    sealed_link BLOB NOT NULL,
    user_name BLOB NOT NULL,
    profile BLOB NOT NULL,
    resource TEXT NOT NULL,
    server_url TEXT NOT NULL,
    server_label BLOB NOT NULL,
    scopes TEXT NOT NULL,
    reason TEXT NOT NULL,
    application BLOB NOT NULL,
    -- gateway, app, local
    proof TEXT NOT NULL,
    verifier_url TEXT,
    callback_url TEXT,
    sealed_callback_key BLOB,
    run_id TEXT,
    -- JSON: what discovery found.
    discovered BLOB NOT NULL,
    -- pending, started, confirming, granted, declined, failed, mismatched, expired
    state TEXT NOT NULL,
    outcome TEXT,
    -- SHA-256 of the browser's cookie and of the reference an application confirms.
    browser_hash BLOB,
    reference_hash BLOB,
    -- The browser that was sent to the application for its word, what is to come back with it, and, sealed, the link
    -- for several that it came by.
    asked_hash BLOB,
    proof_hash BLOB,
    sealed_batch BLOB,
    proven INTEGER NOT NULL DEFAULT 0,
    -- SHA-256 of OAuth's state, and what belongs to it.
    state_hash BLOB,
    sealed_verifier BLOB,
    client BLOB,
    sealed_tokens BLOB,
    account BLOB,
    connection TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    PRIMARY KEY (project, id)
) STRICT;
CREATE UNIQUE INDEX flows_by_id ON flows (id);
CREATE UNIQUE INDEX flows_by_link ON flows (link_hash);
CREATE UNIQUE INDEX flows_by_state ON flows (state_hash);
CREATE UNIQUE INDEX flows_by_reference ON flows (reference_hash);
CREATE INDEX flows_by_owner ON flows (project, user_name, profile, resource);
CREATE INDEX flows_by_change ON flows (changed_at);
CREATE INDEX flows_by_end ON flows (expires_at);

-- One link for several flows of one user.
CREATE TABLE flow_batches (
    project TEXT NOT NULL,
    id TEXT NOT NULL,
    link_hash BLOB NOT NULL,
    -- The flows' ids, separated by spaces.
    flows TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (project, id)
) STRICT;
CREATE UNIQUE INDEX flow_batches_by_link ON flow_batches (link_hash);

-- Clients that authorization servers made for us on request (RFC 7591).
CREATE TABLE registrations (
    issuer TEXT NOT NULL,
    redirect_uri TEXT NOT NULL,
    client_id TEXT NOT NULL,
    sealed_secret BLOB,
    auth_method TEXT NOT NULL,
    -- What it named when it was registered: some servers refuse later what was not.
    scope TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    -- When its secret ends.
    expires_at INTEGER,
    -- New logins use another client; connections that were made with this one go on with it.
    retired_at INTEGER,
    -- The server does not know it any more.
    invalid_at INTEGER,
    PRIMARY KEY (issuer, redirect_uri, client_id)
) STRICT;
CREATE UNIQUE INDEX registrations_in_use ON registrations (issuer, redirect_uri) WHERE retired_at IS NULL;

-- Webhooks to be sent: at least once, in order within one stream.
CREATE TABLE outbox (
    project TEXT NOT NULL,
    id TEXT NOT NULL,
    stream TEXT NOT NULL,
    place INTEGER NOT NULL,
    url TEXT NOT NULL,
    sealed_key BLOB NOT NULL,
    sealed_body BLOB NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_at INTEGER NOT NULL,
    lease_owner TEXT,
    lease_until INTEGER NOT NULL DEFAULT 0,
    -- waiting, delivered, given_up
    state TEXT NOT NULL,
    status INTEGER,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (project, id)
) STRICT;
CREATE INDEX outbox_due ON outbox (state, next_at);
CREATE UNIQUE INDEX outbox_order ON outbox (stream, url, place);

-- Tokens to be revoked at their authorization server (RFC 7009).
CREATE TABLE revocations (
    project TEXT NOT NULL,
    id TEXT NOT NULL,
    connection TEXT NOT NULL,
    user_name BLOB NOT NULL,
    sealed_refresh BLOB,
    sealed_access BLOB,
    issuer TEXT NOT NULL,
    client_id TEXT NOT NULL,
    endpoints BLOB NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_at INTEGER NOT NULL,
    lease_owner TEXT,
    lease_until INTEGER NOT NULL DEFAULT 0,
    -- waiting, revoked, unsupported, given_up
    outcome TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    PRIMARY KEY (project, id)
) STRICT;
CREATE INDEX revocations_due ON revocations (outcome, next_at);
CREATE INDEX revocations_by_connection ON revocations (project, connection);

-- What happened to whose authorisations. Rows are only ever added.
CREATE TABLE audit (
    project TEXT NOT NULL,
    id TEXT NOT NULL,
    at INTEGER NOT NULL,
    event TEXT NOT NULL,
    user_name BLOB,
    profile BLOB,
    connection TEXT,
    flow TEXT,
    resource TEXT,
    -- Who caused it: a key, an account, the gateway itself.
    actor TEXT NOT NULL,
    detail TEXT,
    PRIMARY KEY (project, id)
) STRICT;
CREATE INDEX audit_by_time ON audit (project, at);
