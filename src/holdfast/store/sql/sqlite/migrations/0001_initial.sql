-- The first schema. The lowest reader version that may open the database is its `user_version`.

CREATE TABLE migrations (
    number      INTEGER PRIMARY KEY,
    name        TEXT NOT NULL,
    applied_at  REAL NOT NULL
) STRICT;

-- One goal with its input, from submission to result.
CREATE TABLE tasks (
    task_id          TEXT PRIMARY KEY,
    root_id          TEXT NOT NULL,          -- the outermost ancestor; itself when there is none
    parent_id        TEXT,
    parent_item      TEXT,
    name             TEXT NOT NULL,          -- the task function's name
    key              TEXT,                   -- names the task for `run` and deduplicates `submit`
    input            BLOB NOT NULL,
    status           TEXT NOT NULL,
    queue            TEXT NOT NULL,
    priority         INTEGER NOT NULL,
    workspace        TEXT,                   -- root directory
    workspace_id     TEXT,                   -- the id in its marker file
    require_evidence INTEGER NOT NULL,
    budget           BLOB,
    result           BLOB,
    error            TEXT,
    forked_from      TEXT,                   -- checkpoint id
    verifying        TEXT,                   -- the worker that makes the last check of everything
    created_at       REAL NOT NULL,
    updated_at       REAL NOT NULL,
    finished_at      REAL
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX tasks_by_key ON tasks (name, key) WHERE key IS NOT NULL;
CREATE INDEX tasks_by_status ON tasks (status, created_at);
CREATE INDEX tasks_to_verify ON tasks (status, verifying) WHERE verifying IS NOT NULL;
CREATE INDEX tasks_by_root ON tasks (root_id);
CREATE INDEX tasks_by_parent ON tasks (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX tasks_finished ON tasks (finished_at) WHERE finished_at IS NOT NULL;

-- The unit that is leased, executed, checkpointed and retried.
CREATE TABLE work_items (
    task_id          TEXT NOT NULL,
    item_id          TEXT NOT NULL,
    root_id          TEXT NOT NULL,
    position         INTEGER NOT NULL,       -- order in the plan
    handler          TEXT NOT NULL,
    input            BLOB NOT NULL,
    status           TEXT NOT NULL,
    queue            TEXT NOT NULL,
    priority         INTEGER NOT NULL,
    claim_order      REAL NOT NULL,          -- ready time less a bonus for priority: lowest first
    remaining        INTEGER NOT NULL,       -- dependencies left
    policy           BLOB NOT NULL,          -- attempts, backoff, time limit
    max_crashes      INTEGER NOT NULL,
    owes             BLOB,                   -- the evidence pack the plan asks for
    attempts         INTEGER NOT NULL DEFAULT 0,
    failures         INTEGER NOT NULL DEFAULT 0,
    crashes          INTEGER NOT NULL DEFAULT 0,   -- consecutive, without a new durable entry
    alone            INTEGER NOT NULL DEFAULT 0,   -- suspected: run it with nothing beside it
    generation       INTEGER NOT NULL DEFAULT 0,   -- reopenings
    must_run         INTEGER NOT NULL DEFAULT 0,   -- reopened, and an input of it changed
    lease_owner      TEXT,
    lease_token      INTEGER NOT NULL DEFAULT 0,   -- the fencing token, new at every claim
    claimed_seq      INTEGER NOT NULL DEFAULT 0,
    wait             TEXT,                   -- what it waits for, as JSON
    wake_at          REAL,
    cancel           INTEGER NOT NULL DEFAULT 0,
    seq              INTEGER NOT NULL DEFAULT 0,   -- the last journal entry
    chain_head       BLOB NOT NULL,
    pruned_seq       INTEGER NOT NULL DEFAULT 0,   -- entries up to here may be gone
    restores         INTEGER NOT NULL DEFAULT 0,   -- the handler calls `restore`
    result           BLOB,
    result_hash      BLOB,
    proven           INTEGER NOT NULL DEFAULT 0,
    error            TEXT,
    created_at       REAL NOT NULL,
    started_at       REAL,
    finished_at      REAL,
    PRIMARY KEY (task_id, item_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX work_items_ready ON work_items (queue, claim_order, handler) WHERE status = 'ready';
CREATE INDEX work_items_ready_of_root ON work_items (root_id, claim_order, handler)
WHERE status = 'ready';
CREATE INDEX work_items_restoring ON work_items (status) WHERE restores = 1;
CREATE INDEX work_items_leased ON work_items (lease_owner) WHERE status = 'running';
CREATE INDEX work_items_wake ON work_items (wake_at) WHERE status = 'waiting' AND wake_at IS NOT NULL;
CREATE INDEX work_items_by_status ON work_items (task_id, status);

CREATE TABLE work_item_edges (
    task_id   TEXT NOT NULL,
    item_id   TEXT NOT NULL,
    after_id  TEXT NOT NULL,
    PRIMARY KEY (task_id, item_id, after_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX work_item_dependents ON work_item_edges (task_id, after_id);

-- What a work item did. Append-only; an intent and its outcome are two rows.
CREATE TABLE journal (
    task_id   TEXT NOT NULL,
    item_id   TEXT NOT NULL,
    seq       INTEGER NOT NULL,
    kind      TEXT NOT NULL,
    name      TEXT NOT NULL,
    scope     TEXT NOT NULL,
    identity  BLOB NOT NULL,                 -- digest of scope, kind, name and arguments, or of the key
    status    TEXT NOT NULL,
    effect    TEXT,
    ref       INTEGER,                       -- the entry this one settles or marks
    keyed     INTEGER NOT NULL,              -- its idempotency key was used
    attempt   INTEGER NOT NULL,
    at        REAL NOT NULL,
    micros    INTEGER NOT NULL,              -- how long the call took
    request   BLOB,
    outcome   BLOB,
    usage     BLOB,
    chain     BLOB NOT NULL,
    PRIMARY KEY (task_id, item_id, seq)
) STRICT, WITHOUT ROWID;

-- A state snapshot and its evidence at one point of the journal.
CREATE TABLE checkpoints (
    task_id      TEXT NOT NULL,
    item_id      TEXT NOT NULL,
    number       INTEGER NOT NULL,
    type         TEXT NOT NULL,
    state        BLOB NOT NULL,
    pack         BLOB NOT NULL,
    verdicts     BLOB NOT NULL,
    status       TEXT NOT NULL,              -- verified | recorded | refuted
    journal_seq  INTEGER NOT NULL,
    anchor       BLOB NOT NULL,              -- the chain head at that point
    generation   INTEGER NOT NULL,
    created_at   REAL NOT NULL,
    verified_at  REAL,
    seconds      REAL NOT NULL,              -- what verification cost
    PRIMARY KEY (task_id, item_id, number)
) STRICT, WITHOUT ROWID;

-- The newest claim about each subject: what is checked again. An upsert is how one supersedes another.
CREATE TABLE claims (
    task_id     TEXT NOT NULL,
    subject     TEXT NOT NULL,
    item_id     TEXT NOT NULL,
    number      INTEGER NOT NULL,            -- the checkpoint that made it
    evidence    BLOB NOT NULL,
    verdict     BLOB NOT NULL,
    checked_at  REAL NOT NULL,
    PRIMARY KEY (task_id, subject)
) STRICT, WITHOUT ROWID;

CREATE INDEX claims_by_item ON claims (task_id, item_id);

-- Large payloads, by content within a task.
CREATE TABLE blobs (
    task_id  TEXT NOT NULL,
    digest   BLOB NOT NULL,
    data     BLOB NOT NULL,
    PRIMARY KEY (task_id, digest)
) STRICT;

-- LLM outputs that other runs may use, with payloads of their own.
CREATE TABLE llm_cache (
    namespace      TEXT NOT NULL,
    key            BLOB NOT NULL,
    model          TEXT NOT NULL,
    payload        BLOB,                     -- NULL while somebody generates it
    holder         TEXT,                     -- who generates it
    input_tokens   INTEGER NOT NULL DEFAULT 0,
    output_tokens  INTEGER NOT NULL DEFAULT 0,
    cost           REAL,                     -- US dollars; NULL when unknown
    hits           INTEGER NOT NULL DEFAULT 0,
    created_at     REAL NOT NULL,
    expires_at     REAL,
    PRIMARY KEY (namespace, key)
) STRICT;

CREATE INDEX llm_cache_expiry ON llm_cache (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE workers (
    worker_id   TEXT PRIMARY KEY,
    slot        INTEGER NOT NULL UNIQUE,     -- its byte of the lock file; never used twice
    host        TEXT NOT NULL,
    pid         INTEGER NOT NULL,
    version     TEXT NOT NULL,
    lease       REAL NOT NULL,               -- seconds without a renewal after which it is taken for dead
    renewals    INTEGER NOT NULL,
    status      TEXT NOT NULL,               -- alive | draining | gone
    started_at  REAL NOT NULL,
    seen_at     REAL NOT NULL                -- for people; no decision compares it
) STRICT, WITHOUT ROWID;

-- The last batch each writer marked: settles a commit whose answer was lost. A batch that appended
-- to a journal is settled by its entry there and isn't marked.
CREATE TABLE writers (
    writer_id  TEXT PRIMARY KEY,
    batch      INTEGER NOT NULL,
    marked_at  REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    task_id   TEXT NOT NULL,
    event_id  TEXT NOT NULL,                 -- sorts by time
    item_id   TEXT,
    type      TEXT NOT NULL,
    at        REAL NOT NULL,
    data      TEXT NOT NULL,
    PRIMARY KEY (task_id, event_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE signals (
    task_id    TEXT NOT NULL,
    signal_id  TEXT NOT NULL,
    name       TEXT NOT NULL,
    payload    BLOB NOT NULL,
    sent_at    REAL NOT NULL,
    taken_by   TEXT,                         -- item/sequence of the entry that took it
    PRIMARY KEY (task_id, signal_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE schedules (
    name      TEXT PRIMARY KEY,
    task      TEXT NOT NULL,
    input     BLOB NOT NULL,
    cron      TEXT NOT NULL,
    timezone  TEXT NOT NULL,
    next_at   REAL NOT NULL,
    last_at   REAL
) STRICT, WITHOUT ROWID;

-- Sums over all runs, one row a writer so that writers don't wait for one another.
CREATE TABLE counters (
    name    TEXT NOT NULL,
    writer  TEXT NOT NULL,
    value   REAL NOT NULL,
    PRIMARY KEY (name, writer)
) STRICT, WITHOUT ROWID;
