-- The first schema. `holdfast.` stands for the schema that the URL names.

-- What is known of the whole database: `reader_version`, the lowest that may open it, and the key
-- that secrets are digested with.
CREATE TABLE holdfast.meta (
    name   TEXT COLLATE "C" PRIMARY KEY,
    value  TEXT COLLATE "C" NOT NULL
);

CREATE TABLE holdfast.migrations (
    number      BIGINT PRIMARY KEY,
    name        TEXT COLLATE "C" NOT NULL,
    applied_at  FLOAT8 NOT NULL
);

-- One goal with its input, from submission to result.
CREATE TABLE holdfast.tasks (
    task_id          TEXT COLLATE "C" PRIMARY KEY,
    root_id          TEXT COLLATE "C" NOT NULL,          -- the outermost ancestor; itself when there is none
    parent_id        TEXT COLLATE "C",
    parent_item      TEXT COLLATE "C",
    name             TEXT COLLATE "C" NOT NULL,          -- the task function's name
    key              TEXT COLLATE "C",                   -- names the task for `run` and deduplicates `submit`
    input            BYTEA NOT NULL,
    status           TEXT COLLATE "C" NOT NULL,
    queue            TEXT COLLATE "C" NOT NULL,
    priority         BIGINT NOT NULL,
    workspace        TEXT COLLATE "C",                   -- root directory
    workspace_id     TEXT COLLATE "C",                   -- the id in its marker file
    require_evidence BIGINT NOT NULL,
    budget           BYTEA,
    result           BYTEA,
    error            TEXT COLLATE "C",
    forked_from      TEXT COLLATE "C",                   -- checkpoint id
    verifying        TEXT COLLATE "C",                   -- the worker that makes the last check of everything
    created_at       FLOAT8 NOT NULL,
    updated_at       FLOAT8 NOT NULL,
    finished_at      FLOAT8
);

CREATE UNIQUE INDEX tasks_by_key ON holdfast.tasks (name, key) WHERE key IS NOT NULL;
CREATE INDEX tasks_by_status ON holdfast.tasks (status, created_at);
CREATE INDEX tasks_to_verify ON holdfast.tasks (status, verifying) WHERE verifying IS NOT NULL;
CREATE INDEX tasks_by_root ON holdfast.tasks (root_id);
CREATE INDEX tasks_by_parent ON holdfast.tasks (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX tasks_finished ON holdfast.tasks (finished_at) WHERE finished_at IS NOT NULL;

-- The unit that is leased, executed, checkpointed and retried.
CREATE TABLE holdfast.work_items (
    task_id          TEXT COLLATE "C" NOT NULL,
    item_id          TEXT COLLATE "C" NOT NULL,
    root_id          TEXT COLLATE "C" NOT NULL,
    position         BIGINT NOT NULL,       -- order in the plan
    handler          TEXT COLLATE "C" NOT NULL,
    input            BYTEA NOT NULL,
    status           TEXT COLLATE "C" NOT NULL,
    queue            TEXT COLLATE "C" NOT NULL,
    priority         BIGINT NOT NULL,
    claim_order      FLOAT8 NOT NULL,          -- ready time less a bonus for priority: lowest first
    remaining        BIGINT NOT NULL,       -- dependencies left
    policy           BYTEA NOT NULL,          -- attempts, backoff, time limit
    max_crashes      BIGINT NOT NULL,
    owes             BYTEA,                   -- the evidence pack the plan asks for
    attempts         BIGINT NOT NULL DEFAULT 0,
    failures         BIGINT NOT NULL DEFAULT 0,
    crashes          BIGINT NOT NULL DEFAULT 0,   -- consecutive, without a new durable entry
    alone            BIGINT NOT NULL DEFAULT 0,   -- suspected: run it with nothing beside it
    generation       BIGINT NOT NULL DEFAULT 0,   -- reopenings
    must_run         BIGINT NOT NULL DEFAULT 0,   -- reopened, and an input of it changed
    lease_owner      TEXT COLLATE "C",
    lease_token      BIGINT NOT NULL DEFAULT 0,   -- the fencing token, new at every claim
    claimed_seq      BIGINT NOT NULL DEFAULT 0,
    wait             TEXT COLLATE "C",                   -- what it waits for, as JSON
    wake_at          FLOAT8,
    cancel           BIGINT NOT NULL DEFAULT 0,
    seq              BIGINT NOT NULL DEFAULT 0,   -- the last journal entry
    chain_head       BYTEA NOT NULL,
    pruned_seq       BIGINT NOT NULL DEFAULT 0,   -- entries up to here may be gone
    restores         BIGINT NOT NULL DEFAULT 0,   -- the handler calls `restore`
    result           BYTEA,
    result_hash      BYTEA,
    proven           BIGINT NOT NULL DEFAULT 0,
    error            TEXT COLLATE "C",
    created_at       FLOAT8 NOT NULL,
    started_at       FLOAT8,
    finished_at      FLOAT8,
    PRIMARY KEY (task_id, item_id)
) WITH (fillfactor = 70);  -- room to update a row where it stands, without its indexes

CREATE INDEX work_items_ready ON holdfast.work_items (queue, claim_order, handler) WHERE status = 'ready';
CREATE INDEX work_items_ready_of_root ON holdfast.work_items (root_id, claim_order, handler)
WHERE status = 'ready';
CREATE INDEX work_items_restoring ON holdfast.work_items (status) WHERE restores = 1;
CREATE INDEX work_items_leased ON holdfast.work_items (lease_owner) WHERE status = 'running';
CREATE INDEX work_items_wake ON holdfast.work_items (wake_at) WHERE status = 'waiting' AND wake_at IS NOT NULL;
CREATE INDEX work_items_by_status ON holdfast.work_items (task_id, status);

CREATE TABLE holdfast.work_item_edges (
    task_id   TEXT COLLATE "C" NOT NULL,
    item_id   TEXT COLLATE "C" NOT NULL,
    after_id  TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (task_id, item_id, after_id)
);

CREATE INDEX work_item_dependents ON holdfast.work_item_edges (task_id, after_id);

-- What a work item did. Append-only; an intent and its outcome are two rows.
CREATE TABLE holdfast.journal (
    task_id   TEXT COLLATE "C" NOT NULL,
    item_id   TEXT COLLATE "C" NOT NULL,
    seq       BIGINT NOT NULL,
    kind      TEXT COLLATE "C" NOT NULL,
    name      TEXT COLLATE "C" NOT NULL,
    scope     TEXT COLLATE "C" NOT NULL,
    identity  BYTEA NOT NULL,                 -- digest of scope, kind, name and arguments, or of the key
    status    TEXT COLLATE "C" NOT NULL,
    effect    TEXT COLLATE "C",
    ref       BIGINT ,                       -- the entry this one settles or marks
    keyed     BIGINT NOT NULL,              -- its idempotency key was used
    attempt   BIGINT NOT NULL,
    at        FLOAT8 NOT NULL,
    micros    BIGINT NOT NULL,              -- how long the call took
    request   BYTEA,
    outcome   BYTEA,
    usage     BYTEA,
    chain     BYTEA NOT NULL,
    PRIMARY KEY (task_id, item_id, seq)
);

-- A state snapshot and its evidence at one point of the journal.
CREATE TABLE holdfast.checkpoints (
    task_id      TEXT COLLATE "C" NOT NULL,
    item_id      TEXT COLLATE "C" NOT NULL,
    number       BIGINT NOT NULL,
    type         TEXT COLLATE "C" NOT NULL,
    state        BYTEA NOT NULL,
    pack         BYTEA NOT NULL,
    verdicts     BYTEA NOT NULL,
    status       TEXT COLLATE "C" NOT NULL,              -- verified | recorded | refuted
    journal_seq  BIGINT NOT NULL,
    anchor       BYTEA NOT NULL,              -- the chain head at that point
    generation   BIGINT NOT NULL,
    created_at   FLOAT8 NOT NULL,
    verified_at  FLOAT8,
    seconds      FLOAT8 NOT NULL,              -- what verification cost
    PRIMARY KEY (task_id, item_id, number)
);

-- The newest claim about each subject: what is checked again. An upsert is how one supersedes another.
CREATE TABLE holdfast.claims (
    task_id     TEXT COLLATE "C" NOT NULL,
    subject     TEXT COLLATE "C" NOT NULL,
    item_id     TEXT COLLATE "C" NOT NULL,
    number      BIGINT NOT NULL,            -- the checkpoint that made it
    evidence    BYTEA NOT NULL,
    verdict     BYTEA NOT NULL,
    checked_at  FLOAT8 NOT NULL,
    PRIMARY KEY (task_id, subject)
);

CREATE INDEX claims_by_item ON holdfast.claims (task_id, item_id);

-- Large payloads, by content within a task.
CREATE TABLE holdfast.blobs (
    task_id  TEXT COLLATE "C" NOT NULL,
    digest   BYTEA NOT NULL,
    data     BYTEA NOT NULL,
    PRIMARY KEY (task_id, digest)
);

-- LLM outputs that other runs may use, with payloads of their own.
CREATE TABLE holdfast.llm_cache (
    namespace      TEXT COLLATE "C" NOT NULL,
    key            BYTEA NOT NULL,
    model          TEXT COLLATE "C" NOT NULL,
    payload        BYTEA,                     -- NULL while somebody generates it
    holder         TEXT COLLATE "C",                     -- who generates it
    input_tokens   BIGINT NOT NULL DEFAULT 0,
    output_tokens  BIGINT NOT NULL DEFAULT 0,
    cost           FLOAT8,                     -- US dollars; NULL when unknown
    hits           BIGINT NOT NULL DEFAULT 0,
    created_at     FLOAT8 NOT NULL,
    expires_at     FLOAT8,
    PRIMARY KEY (namespace, key)
);

CREATE INDEX llm_cache_expiry ON holdfast.llm_cache (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE holdfast.workers (
    worker_id   TEXT COLLATE "C" PRIMARY KEY,
    slot        BIGINT NOT NULL UNIQUE,     -- never used twice
    host        TEXT COLLATE "C" NOT NULL,
    pid         BIGINT NOT NULL,
    version     TEXT COLLATE "C" NOT NULL,
    lease       FLOAT8 NOT NULL,               -- seconds without a renewal after which it is taken for dead
    renewals    BIGINT NOT NULL,
    status      TEXT COLLATE "C" NOT NULL,               -- alive | draining | gone
    started_at  FLOAT8 NOT NULL,
    seen_at     FLOAT8 NOT NULL,              -- for people; no decision compares it
    process     TEXT COLLATE "C" NOT NULL,    -- which process it is on its machine
    expires_at  TIMESTAMPTZ NOT NULL          -- by the clock of the server
);

-- The last batch each writer marked: settles a commit whose answer was lost. A batch that appended
-- to a journal is settled by its entry there and isn't marked.
CREATE TABLE holdfast.writers (
    writer_id  TEXT COLLATE "C" PRIMARY KEY,
    batch      BIGINT NOT NULL,
    marked_at  FLOAT8 NOT NULL
);

CREATE TABLE holdfast.events (
    task_id   TEXT COLLATE "C" NOT NULL,
    event_id  TEXT COLLATE "C" NOT NULL,                 -- sorts by time
    item_id   TEXT COLLATE "C",
    type      TEXT COLLATE "C" NOT NULL,
    at        FLOAT8 NOT NULL,
    data      TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (task_id, event_id)
);

CREATE TABLE holdfast.signals (
    task_id    TEXT COLLATE "C" NOT NULL,
    signal_id  TEXT COLLATE "C" NOT NULL,
    name       TEXT COLLATE "C" NOT NULL,
    payload    BYTEA NOT NULL,
    sent_at    FLOAT8 NOT NULL,
    taken_by   TEXT COLLATE "C",                         -- item/sequence of the entry that took it
    PRIMARY KEY (task_id, signal_id)
);

CREATE TABLE holdfast.schedules (
    name      TEXT COLLATE "C" PRIMARY KEY,
    task      TEXT COLLATE "C" NOT NULL,
    input     BYTEA NOT NULL,
    cron      TEXT COLLATE "C" NOT NULL,
    timezone  TEXT COLLATE "C" NOT NULL,
    next_at   FLOAT8 NOT NULL,
    last_at   FLOAT8
);

-- Sums over all runs, one row a writer so that writers don't wait for one another.
CREATE TABLE holdfast.counters (
    name    TEXT COLLATE "C" NOT NULL,
    writer  TEXT COLLATE "C" NOT NULL,
    value   FLOAT8 NOT NULL,
    PRIMARY KEY (name, writer)
);
