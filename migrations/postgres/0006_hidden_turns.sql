-- Turns of a run that its caller did not see, under a digest of whose they are and what it saw of them.
CREATE TABLE hidden_turns (
    project TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    user_name BYTEA NOT NULL,
    run TEXT COLLATE "C",
    sealed_messages BYTEA NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (project, id)
);
CREATE INDEX hidden_turns_by_end ON hidden_turns (expires_at);
CREATE INDEX hidden_turns_by_run ON hidden_turns (project, run);
