-- A process that carries out runs. Once it is declared dead it writes no more.
CREATE TABLE instances (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    -- When it last wrote, or, once it is dead, when it was declared so.
    seen_at BIGINT NOT NULL,
    dead BIGINT NOT NULL DEFAULT 0
);

-- One execution of the loop that outlives its viewers.
CREATE TABLE runs (
    project TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    -- Empty: nobody, none.
    user_name BYTEA NOT NULL,
    profile BYTEA NOT NULL,
    -- The signed-in person it belongs to; empty when only the project's keys may read it.
    person BYTEA NOT NULL,
    -- completion, task, page
    kind TEXT COLLATE "C" NOT NULL,
    model BYTEA NOT NULL,
    title BYTEA NOT NULL,
    -- queued, in_progress, requires_action, completed, failed, cancelled, incomplete
    status TEXT COLLATE "C" NOT NULL,
    -- Why it ended as it did.
    reason TEXT COLLATE "C",
    -- private, unlisted, public
    visibility TEXT COLLATE "C" NOT NULL,
    -- 1: tools of a user who is logged in were used.
    used_logins BIGINT NOT NULL DEFAULT 0,
    -- 1: kept until deleted, and in lists.
    stored BIGINT NOT NULL,
    -- JSON: an object.
    metadata BYTEA NOT NULL,
    -- JSON: what the caller asked, without credentials.
    request BYTEA NOT NULL,
    -- JSON: what else is needed to go on.
    state BYTEA NOT NULL,
    -- The instance that carries it out; empty: nobody.
    owner TEXT COLLATE "C" NOT NULL,
    takeovers BIGINT NOT NULL DEFAULT 0,
    cancel_requested BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    changed_at BIGINT NOT NULL,
    ended_at BIGINT,
    expires_at BIGINT,
    prompt_tokens BIGINT NOT NULL DEFAULT 0,
    completion_tokens BIGINT NOT NULL DEFAULT 0,
    turns BIGINT NOT NULL DEFAULT 0,
    tool_calls BIGINT NOT NULL DEFAULT 0,
    -- The title in small letters, to look for words in.
    search BYTEA NOT NULL,
    PRIMARY KEY (project, id)
);
CREATE UNIQUE INDEX runs_id ON runs (id);
CREATE INDEX runs_by_age ON runs (project, stored, created_at, id);
CREATE INDEX runs_by_person ON runs (person, created_at, id) WHERE length(person) > 0;
CREATE INDEX runs_under_way ON runs (owner) WHERE ended_at IS NULL;
CREATE INDEX runs_by_end ON runs (expires_at) WHERE expires_at IS NOT NULL;

-- Its events, a batch a row. Numbers of events are dense, from 0.
CREATE TABLE run_events (
    project TEXT COLLATE "C" NOT NULL,
    run TEXT COLLATE "C" NOT NULL,
    place BIGINT NOT NULL,
    -- The number of its first event, and how many there are.
    first BIGINT NOT NULL,
    number BIGINT NOT NULL,
    events BYTEA NOT NULL,
    -- What went on behind the events, for who takes the run over.
    steps BYTEA,
    PRIMARY KEY (project, run, place)
);

-- What must not happen twice: which run has taken a key first.
CREATE TABLE run_keys (
    project TEXT COLLATE "C" NOT NULL,
    -- idempotency, content
    kind TEXT COLLATE "C" NOT NULL,
    key_hash BYTEA NOT NULL,
    body_hash BYTEA NOT NULL,
    run TEXT COLLATE "C" NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (project, kind, key_hash)
);
CREATE INDEX run_keys_by_end ON run_keys (expires_at);
CREATE INDEX run_keys_by_run ON run_keys (project, run);
