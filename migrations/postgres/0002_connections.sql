-- A user's stored authorisation at one protected resource.
CREATE TABLE connections (
    project TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    user_name BYTEA NOT NULL,
    profile BYTEA NOT NULL,
    -- As the metadata writes it, to the letter.
    resource TEXT COLLATE "C" NOT NULL,
    issuer TEXT COLLATE "C" NOT NULL,
    client_id TEXT COLLATE "C" NOT NULL,
    scopes TEXT COLLATE "C" NOT NULL,
    -- Who the user is at the resource, where it says so.
    account BYTEA,
    -- The application that asked.
    application BYTEA NOT NULL,
    -- JSON: the endpoints and how the client proves itself there.
    endpoints BYTEA NOT NULL,
    -- active, needs_reauth, revoked
    status TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL,
    PRIMARY KEY (project, id)
);
CREATE INDEX connections_by_owner ON connections (project, user_name, profile);
CREATE UNIQUE INDEX connections_in_use ON connections (project, user_name, profile, resource)
    WHERE status <> 'revoked';
CREATE INDEX connections_by_change ON connections (changed_at);
CREATE INDEX connections_by_use ON connections (status, last_used_at);

-- Its tokens, and the right to renew them.
CREATE TABLE connection_secrets (
    project TEXT COLLATE "C" NOT NULL,
    connection TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    sealed_access BYTEA NOT NULL,
    sealed_refresh BYTEA,
    issued_at BIGINT NOT NULL,
    expires_at BIGINT,
    lease_owner TEXT COLLATE "C",
    lease_until BIGINT NOT NULL DEFAULT 0,
    attempt_started_at BIGINT,
    failures BIGINT NOT NULL DEFAULT 0,
    retry_at BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (project, connection)
);

-- A pending authorisation: from link to stored connection.
CREATE TABLE flows (
    project TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    -- SHA-256 of what stands in the link, and the link itself, sealed, to show it again.
    link_hash BYTEA NOT NULL,
    sealed_link BYTEA NOT NULL,
    user_name BYTEA NOT NULL,
    profile BYTEA NOT NULL,
    resource TEXT COLLATE "C" NOT NULL,
    server_url TEXT COLLATE "C" NOT NULL,
    server_label BYTEA NOT NULL,
    scopes TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    application BYTEA NOT NULL,
    -- gateway, app, local
    proof TEXT COLLATE "C" NOT NULL,
    verifier_url TEXT COLLATE "C",
    callback_url TEXT COLLATE "C",
    sealed_callback_key BYTEA,
    run_id TEXT COLLATE "C",
    -- JSON: what discovery found.
    discovered BYTEA NOT NULL,
    -- pending, started, confirming, granted, declined, failed, mismatched, expired
    state TEXT COLLATE "C" NOT NULL,
    outcome TEXT COLLATE "C",
    -- SHA-256 of the browser's cookie and of the reference an application confirms.
    browser_hash BYTEA,
    reference_hash BYTEA,
    -- The browser that was sent to the application for its word, what is to come back with it, and, sealed, the link
    -- for several that it came by.
    asked_hash BYTEA,
    proof_hash BYTEA,
    sealed_batch BYTEA,
    proven BIGINT NOT NULL DEFAULT 0,
    -- SHA-256 of OAuth's state, and what belongs to it.
    state_hash BYTEA,
    sealed_verifier BYTEA,
    client BYTEA,
    sealed_tokens BYTEA,
    account BYTEA,
    connection TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (project, id)
);
CREATE UNIQUE INDEX flows_by_id ON flows (id);
CREATE UNIQUE INDEX flows_by_link ON flows (link_hash);
CREATE UNIQUE INDEX flows_by_state ON flows (state_hash);
CREATE UNIQUE INDEX flows_by_reference ON flows (reference_hash);
CREATE INDEX flows_by_owner ON flows (project, user_name, profile, resource);
CREATE INDEX flows_by_change ON flows (changed_at);
CREATE INDEX flows_by_end ON flows (expires_at);

-- One link for several flows of one user.
CREATE TABLE flow_batches (
    project TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    link_hash BYTEA NOT NULL,
    -- The flows' ids, separated by spaces.
    flows TEXT COLLATE "C" NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (project, id)
);
CREATE UNIQUE INDEX flow_batches_by_link ON flow_batches (link_hash);

-- Clients that authorization servers made for us on request (RFC 7591).
CREATE TABLE registrations (
    issuer TEXT COLLATE "C" NOT NULL,
    redirect_uri TEXT COLLATE "C" NOT NULL,
    client_id TEXT COLLATE "C" NOT NULL,
    sealed_secret BYTEA,
    auth_method TEXT COLLATE "C" NOT NULL,
    -- What it named when it was registered: some servers refuse later what was not.
    scope TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    -- When its secret ends.
    expires_at BIGINT,
    -- New logins use another client; connections that were made with this one go on with it.
    retired_at BIGINT,
    -- The server does not know it any more.
    invalid_at BIGINT,
    PRIMARY KEY (issuer, redirect_uri, client_id)
);
CREATE UNIQUE INDEX registrations_in_use ON registrations (issuer, redirect_uri) WHERE retired_at IS NULL;

-- Webhooks to be sent: at least once, in order within one stream.
CREATE TABLE outbox (
    project TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    stream TEXT COLLATE "C" NOT NULL,
    place BIGINT NOT NULL,
    url TEXT COLLATE "C" NOT NULL,
    sealed_key BYTEA NOT NULL,
    sealed_body BYTEA NOT NULL,
    attempts BIGINT NOT NULL DEFAULT 0,
    next_at BIGINT NOT NULL,
    lease_owner TEXT COLLATE "C",
    lease_until BIGINT NOT NULL DEFAULT 0,
    -- waiting, delivered, given_up
    state TEXT COLLATE "C" NOT NULL,
    status BIGINT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (project, id)
);
CREATE INDEX outbox_due ON outbox (state, next_at);
CREATE UNIQUE INDEX outbox_order ON outbox (stream, url, place);

-- Tokens to be revoked at their authorization server (RFC 7009).
CREATE TABLE revocations (
    project TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    connection TEXT COLLATE "C" NOT NULL,
    user_name BYTEA NOT NULL,
    sealed_refresh BYTEA,
    sealed_access BYTEA,
    issuer TEXT COLLATE "C" NOT NULL,
    client_id TEXT COLLATE "C" NOT NULL,
    endpoints BYTEA NOT NULL,
    attempts BIGINT NOT NULL DEFAULT 0,
    next_at BIGINT NOT NULL,
    lease_owner TEXT COLLATE "C",
    lease_until BIGINT NOT NULL DEFAULT 0,
    -- waiting, revoked, unsupported, given_up
    outcome TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (project, id)
);
CREATE INDEX revocations_due ON revocations (outcome, next_at);
CREATE INDEX revocations_by_connection ON revocations (project, connection);

-- What happened to whose authorisations. Rows are only ever added.
CREATE TABLE audit (
    project TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    event TEXT COLLATE "C" NOT NULL,
    user_name BYTEA,
    profile BYTEA,
    connection TEXT COLLATE "C",
    flow TEXT COLLATE "C",
    resource TEXT COLLATE "C",
    -- Who caused it: a key, an account, the gateway itself.
    actor TEXT COLLATE "C" NOT NULL,
    detail TEXT COLLATE "C",
    PRIMARY KEY (project, id)
);
CREATE INDEX audit_by_time ON audit (project, at);
