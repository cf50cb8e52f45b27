-- name: prune.is_open
-- Whether a task or one of its descendants has not ended, or has been taken up again.
SELECT 1 FROM (
    SELECT status FROM holdfast.tasks WHERE root_id = :task_id FOR UPDATE
) AS below
WHERE status NOT IN ('succeeded', 'failed', 'canceled') LIMIT 1

-- name: prune.events
-- The timelines of a task and its descendants.
DELETE FROM holdfast.events WHERE task_id IN (SELECT task_id FROM holdfast.tasks WHERE root_id = :task_id)

-- name: prune.signals
-- Their mailboxes.
DELETE FROM holdfast.signals WHERE task_id IN (SELECT task_id FROM holdfast.tasks WHERE root_id = :task_id)

-- name: prune.approvals
-- What they asked of people.
DELETE FROM holdfast.approvals WHERE task_id IN (SELECT task_id FROM holdfast.tasks WHERE root_id = :task_id)

-- name: prune.reservations
-- What their calls had reserved.
DELETE FROM holdfast.reservations WHERE task_id = :task_id

-- name: prune.budgets
-- Their budget.
DELETE FROM holdfast.budgets WHERE task_id = :task_id

-- name: prune.blobs
-- Their large payloads.
DELETE FROM holdfast.blobs WHERE task_id IN (SELECT task_id FROM holdfast.tasks WHERE root_id = :task_id)

-- name: prune.claims
-- Their claims.
DELETE FROM holdfast.claims WHERE task_id IN (SELECT task_id FROM holdfast.tasks WHERE root_id = :task_id)

-- name: prune.checkpoints
-- Their checkpoints.
DELETE FROM holdfast.checkpoints WHERE task_id IN (SELECT task_id FROM holdfast.tasks WHERE root_id = :task_id)

-- name: prune.journal
-- Their journals.
DELETE FROM holdfast.journal WHERE task_id IN (SELECT task_id FROM holdfast.tasks WHERE root_id = :task_id)

-- name: prune.edges
-- Their plans.
DELETE FROM holdfast.work_item_edges WHERE task_id IN (SELECT task_id FROM holdfast.tasks WHERE root_id = :task_id)

-- name: prune.items
-- Their work items.
DELETE FROM holdfast.work_items WHERE task_id IN (SELECT task_id FROM holdfast.tasks WHERE root_id = :task_id)

-- name: prune.tasks
-- The tasks themselves.
DELETE FROM holdfast.tasks WHERE root_id = :task_id RETURNING 1

-- name: prune.old_checkpoints
-- An unfinished item's checkpoints but the newest few; never the newest that may be resumed from.
DELETE FROM holdfast.checkpoints
WHERE task_id = :task_id AND item_id = :item_id
  AND number < (
      SELECT max(number) FROM holdfast.checkpoints
      WHERE task_id = :task_id AND item_id = :item_id
        AND status IN ('verified', 'recorded') AND type <> 'error_boundary'
        AND length(state) > 0
  )
  AND number NOT IN (
      SELECT number FROM holdfast.checkpoints
      WHERE task_id = :task_id AND item_id = :item_id ORDER BY number DESC LIMIT :keep
  )

-- name: prune.position
-- The oldest checkpoint that is left, where there is one to resume from.
SELECT min(journal_seq) FROM holdfast.checkpoints
WHERE task_id = :task_id AND item_id = :item_id
HAVING bool_or(
    status IN ('verified', 'recorded') AND type <> 'error_boundary' AND length(state) > 0
)

-- name: prune.journal_before
-- Entries before the oldest checkpoint that is left, but those that must stay.
DELETE FROM holdfast.journal
WHERE task_id = :task_id AND item_id = :item_id
  AND seq <= :until
  AND NOT (coalesce(effect, '') = 'once' OR keyed = 1 OR kind IN ('marker', 'approval'))
RETURNING seq

-- name: prune.unreferenced_blobs
-- Large payloads of a task that no row refers to any more.
DELETE FROM holdfast.blobs
WHERE task_id = :task_id AND digest NOT IN (
    SELECT substr(request, 2) FROM holdfast.journal WHERE task_id = :task_id AND substr(request, 1, 1) = '\xff'::bytea
    UNION SELECT substr(outcome, 2) FROM holdfast.journal
          WHERE task_id = :task_id AND substr(outcome, 1, 1) = '\xff'::bytea
    UNION SELECT substr(state, 2) FROM holdfast.checkpoints
          WHERE task_id = :task_id AND substr(state, 1, 1) = '\xff'::bytea
    UNION SELECT substr(input, 2) FROM holdfast.work_items
          WHERE task_id = :task_id AND substr(input, 1, 1) = '\xff'::bytea
    UNION SELECT substr(result, 2) FROM holdfast.work_items
          WHERE task_id = :task_id AND substr(result, 1, 1) = '\xff'::bytea
    UNION SELECT substr(input, 2) FROM holdfast.tasks
          WHERE task_id = :task_id AND substr(input, 1, 1) = '\xff'::bytea
    UNION SELECT substr(result, 2) FROM holdfast.tasks
          WHERE task_id = :task_id AND substr(result, 1, 1) = '\xff'::bytea
    UNION SELECT substr(payload, 2) FROM holdfast.signals
          WHERE task_id = :task_id AND substr(payload, 1, 1) = '\xff'::bytea
)

-- name: prune.cache
-- Expired outputs, and reservations nobody fulfilled.
DELETE FROM holdfast.llm_cache
WHERE expires_at <= :now OR (payload IS NULL AND created_at < :reserved_before)
RETURNING 1

-- name: prune.workers
-- Workers that are gone and hold nothing; the newest slot stays, so that none is used twice.
DELETE FROM holdfast.workers
WHERE status = 'gone' AND seen_at < :before::float8
  AND slot < (SELECT max(slot) FROM holdfast.workers)
  AND NOT EXISTS (
      SELECT 1 FROM holdfast.work_items
      WHERE status || '' = 'running' AND work_items.lease_owner = workers.worker_id
  )
RETURNING 1

-- name: prune.writers
-- Writers that marked no batch for long. One that lives adds its row again.
DELETE FROM holdfast.writers WHERE marked_at < :before::float8

-- name: stats.rows
-- How many rows there are of what.
SELECT 'tasks.' || status, count(*) FROM holdfast.tasks GROUP BY status
UNION ALL SELECT 'work_items.' || status, count(*) FROM holdfast.work_items GROUP BY status
UNION ALL SELECT 'journal', count(*) FROM holdfast.journal
UNION ALL SELECT 'checkpoints', count(*) FROM holdfast.checkpoints
UNION ALL SELECT 'llm_cache', count(*) FROM holdfast.llm_cache
UNION ALL SELECT 'workers.' || status, count(*) FROM holdfast.workers GROUP BY status

-- name: prune.lock_blobs
-- Wait for whoever refers to a large payload of a task, and keep others waiting.
SELECT 1 FROM holdfast.blobs WHERE task_id = :task_id FOR UPDATE
