-- What needs a person's word, and what may be spent.

-- Which calls need an approval without asking for it: interactive | assisted | autonomous.
ALTER TABLE holdfast.tasks ADD COLUMN approvals TEXT COLLATE "C" NOT NULL DEFAULT 'autonomous';

-- One request each. The exact arguments are with its journal entry.
CREATE TABLE holdfast.approvals (
    task_id       TEXT COLLATE "C" NOT NULL,
    item_id       TEXT COLLATE "C" NOT NULL,
    seq           BIGINT NOT NULL,          -- the journal entry that asks
    name          TEXT COLLATE "C" NOT NULL,
    scope         TEXT COLLATE "C" NOT NULL,
    digest        BYTEA NOT NULL,             -- of the exact arguments
    text          TEXT COLLATE "C" NOT NULL,             -- for people, redacted
    status        TEXT COLLATE "C" NOT NULL,             -- waiting | approved | rejected | expired | used
    requested_at  FLOAT8 NOT NULL,
    expires_at    FLOAT8,
    decided_at    FLOAT8,
    decided_by    TEXT COLLATE "C",
    reason        TEXT COLLATE "C",
    PRIMARY KEY (task_id, item_id, seq)
);

CREATE INDEX approvals_waiting ON holdfast.approvals (requested_at) WHERE status = 'waiting';

-- What a root task and everything below it may spend. Money is in billionths of a US dollar.
CREATE TABLE holdfast.budgets (
    task_id      TEXT COLLATE "C" PRIMARY KEY,           -- the root task
    token_limit  BIGINT,                    -- NULL: none
    nano_limit   BIGINT,
    tokens       BIGINT NOT NULL DEFAULT 0, -- spent, what is reserved included
    nanos        BIGINT NOT NULL DEFAULT 0
);

-- What calls under way have reserved. Gone when the call's outcome is recorded.
CREATE TABLE holdfast.reservations (
    task_id  TEXT COLLATE "C" NOT NULL,                  -- the root task
    entry    TEXT COLLATE "C" NOT NULL,                  -- the call's intent: task:item:sequence
    tokens   BIGINT NOT NULL,
    nanos    BIGINT NOT NULL,
    PRIMARY KEY (task_id, entry)
);

CREATE INDEX work_items_waiting_of_root ON holdfast.work_items (root_id) WHERE status = 'waiting';
