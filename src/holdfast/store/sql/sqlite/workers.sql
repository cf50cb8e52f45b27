-- name: worker.next_slot
-- A slot no worker ever had.
SELECT coalesce(max(slot), 0) + 1 FROM workers

-- name: worker.put
-- Add a worker, unless its slot was given out meanwhile.
INSERT INTO workers (
    worker_id, slot, host, pid, version, lease, renewals, status, started_at, seen_at
) VALUES (
    :worker_id, :slot, :host, :pid, :version, :lease, :renewals, :status, :started_at, :seen_at
)
ON CONFLICT DO NOTHING
RETURNING 1

-- name: worker.renew
-- Renew all leases of a worker that was not taken for dead.
UPDATE workers SET renewals = renewals + 1, seen_at = :now
WHERE worker_id = :worker_id AND status <> 'gone'
RETURNING 1

-- name: worker.list
-- Workers that aren't gone.
SELECT * FROM workers WHERE status <> 'gone' ORDER BY slot

-- name: worker.expire
-- Take a worker for dead, unless it has renewed since it was last seen.
UPDATE workers SET status = 'gone', seen_at = :now
WHERE worker_id = :worker_id AND status <> 'gone' AND (:seen IS NULL OR renewals = :seen)
RETURNING 1

-- name: worker.retire
-- A worker stopped, in good order unless it holds a lease still.
UPDATE workers SET
    seen_at = :now,
    status = CASE WHEN EXISTS (
        SELECT 1 FROM work_items WHERE lease_owner = :worker_id AND status = 'running'
    ) THEN status ELSE 'gone' END
WHERE worker_id = :worker_id
RETURNING status = 'gone'

-- name: worker.lingering
-- Nobody: the lock file says it of all.
SELECT * FROM workers WHERE 0

-- name: worker.ended
-- Nothing to record: the lock file says it.
SELECT 1 WHERE 0

-- name: worker.drain
-- A worker claims nothing more.
UPDATE workers SET status = 'draining', seen_at = :now
WHERE worker_id = :worker_id AND status = 'alive'

-- name: writer.mark
-- Which batch of a writer this transaction is.
INSERT INTO writers (writer_id, batch, marked_at) VALUES (:writer_id, :batch, :now)
ON CONFLICT (writer_id) DO UPDATE SET batch = excluded.batch, marked_at = excluded.marked_at

-- name: writer.landed
-- Whether a batch of a writer was committed.
SELECT 1 FROM writers WHERE writer_id = :writer_id AND batch >= :batch

-- name: worker.get
-- A worker.
SELECT * FROM workers WHERE worker_id = :worker_id

-- name: worker.watched
-- Workers that may be dead: any. None is overdue: who watches sees the lock file, and counts renewals.
SELECT 0, workers.* FROM workers WHERE status <> 'gone' ORDER BY slot

-- name: worker.end_hung
-- A transaction left open can't be ended from here.
SELECT 1 WHERE 0

-- name: worker.reader_version
-- The lowest reader version that may open the database.
SELECT user_version FROM pragma_user_version
