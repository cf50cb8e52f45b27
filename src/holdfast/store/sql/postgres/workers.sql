-- name: worker.next_slot
-- A slot no worker ever had.
SELECT coalesce(max(slot), 0) + 1 FROM holdfast.workers

-- name: worker.put
-- Add a worker, unless its slot was given out meanwhile.
INSERT INTO holdfast.workers (
    worker_id, slot, host, pid, version, lease, renewals, status, started_at, seen_at, process,
    expires_at
) VALUES (
    :worker_id, :slot, :host, :pid, :version, :lease, :renewals, :status, :started_at, :seen_at, :process,
    clock_timestamp() + :lease * INTERVAL '1 second'
)
ON CONFLICT DO NOTHING
RETURNING 1

-- name: worker.renew
-- Renew all leases of a worker that was not taken for dead.
UPDATE holdfast.workers SET
    renewals = renewals + 1, seen_at = :now,
    expires_at = clock_timestamp() + lease * INTERVAL '1 second'
WHERE worker_id = :worker_id AND status <> 'gone'
RETURNING 1

-- name: worker.list
-- Workers that aren't gone.
SELECT worker_id, slot, host, pid, version, lease, renewals, status, started_at, seen_at, process
FROM holdfast.workers WHERE status <> 'gone' ORDER BY slot

-- name: worker.expire
-- Take a worker for dead, unless it has renewed since it was last seen.
UPDATE holdfast.workers SET
    status = 'gone', seen_at = :now, process = CASE WHEN :seen IS NULL THEN 'ended' ELSE process END
WHERE worker_id = :worker_id AND status <> 'gone'
  AND (:seen IS NULL OR renewals = :seen AND expires_at < clock_timestamp())
RETURNING 1

-- name: worker.retire
-- A worker stopped, in good order unless it holds a lease still.
UPDATE holdfast.workers SET
    seen_at = :now,
    process = CASE WHEN :over = 1 THEN 'ended' ELSE process END,
    status = CASE WHEN EXISTS (
        SELECT 1 FROM holdfast.work_items WHERE lease_owner = :worker_id AND status || '' = 'running'
    ) THEN status ELSE 'gone' END
WHERE worker_id = :worker_id
RETURNING status = 'gone'

-- name: worker.lingering
-- Workers of a machine that are gone, and whose process may still run.
SELECT worker_id, slot, host, pid, version, lease, renewals, status, started_at, seen_at, process
FROM holdfast.workers WHERE status = 'gone' AND process <> 'ended' AND host = :host ORDER BY slot

-- name: worker.ended
-- The process of a worker that is gone was seen to have ended.
UPDATE holdfast.workers SET process = 'ended' WHERE worker_id = :worker_id AND status = 'gone'

-- name: worker.drain
-- A worker claims nothing more.
UPDATE holdfast.workers SET status = 'draining', seen_at = :now
WHERE worker_id = :worker_id AND status = 'alive'

-- name: writer.mark
-- Which batch of a writer this transaction is.
INSERT INTO holdfast.writers (writer_id, batch, marked_at) VALUES (:writer_id, :batch, :now)
ON CONFLICT (writer_id) DO UPDATE SET batch = excluded.batch, marked_at = excluded.marked_at
RETURNING 1

-- name: writer.landed
-- Whether a batch of a writer was committed.
SELECT 1 FROM holdfast.writers WHERE writer_id = :writer_id AND batch >= :batch

-- name: worker.get
-- A worker.
SELECT worker_id, slot, host, pid, version, lease, renewals, status, started_at, seen_at, process
FROM holdfast.workers WHERE worker_id = :worker_id

-- name: worker.watched
-- Workers that may be dead: those of a machine, where their end is seen, and whichever is overdue.
SELECT expires_at < clock_timestamp(),
    worker_id, slot, host, pid, version, lease, renewals, status, started_at, seen_at, process
FROM holdfast.workers WHERE status <> 'gone' AND (host = :host OR expires_at < clock_timestamp())
ORDER BY slot

-- name: worker.end_hung
-- End transactions whose program hasn't gone on with them for a while, and so free their rows.
-- Only those of the same schema, after which connections are named: another one may be being copied.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND application_name = current_setting('application_name')
  AND wait_event = 'ClientRead'
  AND xact_start < clock_timestamp() - :seconds * INTERVAL '1 second'

-- name: worker.reader_version
-- The lowest reader version that may open the database.
SELECT value::int8 FROM holdfast.meta WHERE name = 'reader_version'
