-- Turns of a run that its caller did not see, under a digest of whose they are and what it saw of them.
CREATE TABLE hidden_turns (
    project TEXT NOT NULL,
    id TEXT NOT NULL,
    user_name BLOB NOT NULL,
    run TEXT,
    sealed_messages BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (project, id)
) STRICT;
CREATE INDEX hidden_turns_by_end ON hidden_turns (expires_at);
CREATE INDEX hidden_turns_by_run ON hidden_turns (project, run);
