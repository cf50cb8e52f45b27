-- Limits of queues, and what schedules need. `holdfast.` stands for the schema that the URL names.

-- A limited queue. One without a row has no limit.
CREATE TABLE holdfast.queues (
    name     TEXT COLLATE "C" PRIMARY KEY,
    running  BIGINT,                     -- items that may run at once; NULL: any number
    rate     BIGINT,                     -- starts within `per` seconds; NULL: any number
    per      FLOAT8 NOT NULL,
    starts   BIGINT NOT NULL DEFAULT 0   -- how many there were since it has a rate: numbers them
);

-- The last starts in a queue that has a rate, as many as the rate says: the next may come when the
-- oldest of them is `per` seconds ago.
CREATE TABLE holdfast.queue_starts (
    queue       TEXT COLLATE "C" NOT NULL,
    number      BIGINT NOT NULL,
    started_at  FLOAT8 NOT NULL,         -- by the clock of the server
    PRIMARY KEY (queue, number)
);

CREATE INDEX work_items_running ON holdfast.work_items (queue) WHERE status = 'running';

ALTER TABLE holdfast.schedules ADD COLUMN options BYTEA;    -- queue, priority and the like
ALTER TABLE holdfast.schedules ADD COLUMN paused BIGINT NOT NULL DEFAULT 0;
ALTER TABLE holdfast.schedules ADD COLUMN last_task TEXT COLLATE "C";
