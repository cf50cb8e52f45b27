-- What needs a person's word, and what may be spent.

-- Which calls need an approval without asking for it: interactive | assisted | autonomous.
ALTER TABLE tasks ADD COLUMN approvals TEXT NOT NULL DEFAULT 'autonomous';

-- One request each. The exact arguments are with its journal entry.
CREATE TABLE approvals (
    task_id       TEXT NOT NULL,
    item_id       TEXT NOT NULL,
    seq           INTEGER NOT NULL,          -- the journal entry that asks
    name          TEXT NOT NULL,
    scope         TEXT NOT NULL,
    digest        BLOB NOT NULL,             -- of the exact arguments
    text          TEXT NOT NULL,             -- for people, redacted
    status        TEXT NOT NULL,             -- waiting | approved | rejected | expired | used
    requested_at  REAL NOT NULL,
    expires_at    REAL,
    decided_at    REAL,
    decided_by    TEXT,
    reason        TEXT,
    PRIMARY KEY (task_id, item_id, seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX approvals_waiting ON approvals (requested_at) WHERE status = 'waiting';

-- What a root task and everything below it may spend. Money is in billionths of a US dollar.
CREATE TABLE budgets (
    task_id      TEXT PRIMARY KEY,           -- the root task
    token_limit  INTEGER,                    -- NULL: none
    nano_limit   INTEGER,
    tokens       INTEGER NOT NULL DEFAULT 0, -- spent, what is reserved included
    nanos        INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- What calls under way have reserved. Gone when the call's outcome is recorded.
CREATE TABLE reservations (
    task_id  TEXT NOT NULL,                  -- the root task
    entry    TEXT NOT NULL,                  -- the call's intent: task:item:sequence
    tokens   INTEGER NOT NULL,
    nanos    INTEGER NOT NULL,
    PRIMARY KEY (task_id, entry)
) STRICT, WITHOUT ROWID;

CREATE INDEX work_items_waiting_of_root ON work_items (root_id) WHERE status = 'waiting';
