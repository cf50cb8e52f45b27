-- Limits of queues, and what schedules need.

-- A limited queue. One without a row has no limit.
CREATE TABLE queues (
    name     TEXT PRIMARY KEY,
    running  INTEGER,                     -- items that may run at once; NULL: any number
    rate     INTEGER,                     -- starts within `per` seconds; NULL: any number
    per      REAL NOT NULL,
    starts   INTEGER NOT NULL DEFAULT 0   -- how many there were since it has a rate: numbers them
) STRICT, WITHOUT ROWID;

-- The last starts in a queue that has a rate, as many as the rate says: the next may come when the
-- oldest of them is `per` seconds ago.
CREATE TABLE queue_starts (
    queue       TEXT NOT NULL,
    number      INTEGER NOT NULL,
    started_at  REAL NOT NULL,
    PRIMARY KEY (queue, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX work_items_running ON work_items (queue) WHERE status = 'running';

ALTER TABLE schedules ADD COLUMN options BLOB;    -- queue, priority and the like
ALTER TABLE schedules ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
ALTER TABLE schedules ADD COLUMN last_task TEXT;
