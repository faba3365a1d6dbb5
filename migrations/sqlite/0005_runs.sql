-- A process that carries out runs. Once it is declared dead it writes no more.
CREATE TABLE instances (
    id TEXT NOT NULL PRIMARY KEY,
    -- When it last wrote, or, once it is dead, when it was declared so.
    seen_at INTEGER NOT NULL,
    dead INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- One execution of the loop that outlives its viewers.
CREATE TABLE runs (
    project TEXT NOT NULL,
    id TEXT NOT NULL,
    -- Empty: nobody, none.
    user_name BLOB NOT NULL,
    profile BLOB NOT NULL,
    -- The signed-in person it belongs to; empty when only the project's keys may read it.
    person BLOB NOT NULL,
    -- completion, task, page
    kind TEXT NOT NULL,
    model BLOB NOT NULL,
    title BLOB NOT NULL,
    -- queued, in_progress, requires_action, completed, failed, cancelled, incomplete
    status TEXT NOT NULL,
    -- Why it ended as it did.
    reason TEXT,
    -- private, unlisted, public
    visibility TEXT NOT NULL,
    -- 1: tools of a user who is logged in were used.
    used_logins INTEGER NOT NULL DEFAULT 0,
    -- 1: kept until deleted, and in lists.
    stored INTEGER NOT NULL,
    -- JSON: an object.
    metadata BLOB NOT NULL,
    -- JSON: what the caller asked, without credentials.
    request BLOB NOT NULL,
    -- JSON: what else is needed to go on.
    state BLOB NOT NULL,
    -- The instance that carries it out; empty: nobody.
    owner TEXT NOT NULL,
    takeovers INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    ended_at INTEGER,
    expires_at INTEGER,
    prompt_tokens INTEGER NOT NULL DEFAULT 0,
    completion_tokens INTEGER NOT NULL DEFAULT 0,
    turns INTEGER NOT NULL DEFAULT 0,
    tool_calls INTEGER NOT NULL DEFAULT 0,
    -- The title in small letters, to look for words in.
    search BLOB NOT NULL,
    PRIMARY KEY (project, id)
) STRICT;
CREATE UNIQUE INDEX runs_id ON runs (id);
CREATE INDEX runs_by_age ON runs (project, stored, created_at, id);
CREATE INDEX runs_by_person ON runs (person, created_at, id) WHERE length(person) > 0;
CREATE INDEX runs_under_way ON runs (owner) WHERE ended_at IS NULL;
CREATE INDEX runs_by_end ON runs (expires_at) WHERE expires_at IS NOT NULL;

-- Its events, a batch a row. Numbers of events are dense, from 0.
CREATE TABLE run_events (
    project TEXT NOT NULL,
    run TEXT NOT NULL,
    place INTEGER NOT NULL,
    -- The number of its first event, and how many there are.
    first INTEGER NOT NULL,
    number INTEGER NOT NULL,
    events BLOB NOT NULL,
    -- What went on behind the events, for who takes the run over.
    steps BLOB,
    PRIMARY KEY (project, run, place)
) STRICT;

-- What must not happen twice: which run has taken a key first.
CREATE TABLE run_keys (
    project TEXT NOT NULL,
    -- idempotency, content
    kind TEXT NOT NULL,
    key_hash BLOB NOT NULL,
    body_hash BLOB NOT NULL,
    run TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (project, kind, key_hash)
) STRICT, WITHOUT ROWID;
CREATE INDEX run_keys_by_end ON run_keys (expires_at);
CREATE INDEX run_keys_by_run ON run_keys (project, run);
