-- An issuer may have made several clients for us: one that knows more scopes, or whose secret lasts longer, follows
-- another, which those who logged in with it keep. Their secrets are sealed to the client's id, too; clients with a secret
-- sealed as before are made anew.
ALTER TABLE registrations RENAME TO registrations_before;

CREATE TABLE registrations (
    issuer TEXT COLLATE "C" NOT NULL,
    redirect_uri TEXT COLLATE "C" NOT NULL,
    client_id TEXT COLLATE "C" NOT NULL,
    sealed_secret BYTEA,
    auth_method TEXT COLLATE "C" NOT NULL,
    scopes TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    -- When its secret expires.
    expires_at BIGINT,
    -- Since when no new login uses it.
    retired_at BIGINT,
    -- Since when the server does not know it any more.
    invalid_at BIGINT,
    PRIMARY KEY (issuer, redirect_uri, client_id)
);

INSERT INTO registrations
    (issuer, redirect_uri, client_id, sealed_secret, auth_method, scopes, created_at, expires_at, retired_at, invalid_at)
SELECT issuer, redirect_uri, client_id, sealed_secret, auth_method, '', created_at, expires_at, NULL, invalid_at
FROM registrations_before WHERE sealed_secret IS NULL;

DROP TABLE registrations_before;
