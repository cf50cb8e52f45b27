-- name: approval.put
-- Ask people for their consent.
INSERT INTO approvals (
    task_id, item_id, seq, name, scope, digest, text, status, requested_at, expires_at
) VALUES (
    :task_id, :item_id, :seq, :name, :scope, :digest, :text, 'waiting', :now, :expires_at
)

-- name: approval.get
-- One request.
SELECT * FROM approvals WHERE task_id = :task_id AND item_id = :item_id AND seq = :seq

-- name: approval.waiting
-- What people are asked now, the oldest first: everything, or a task and what is below it.
WITH RECURSIVE below (task_id) AS (
    SELECT :task_id
    UNION
    SELECT tasks.task_id FROM tasks JOIN below ON tasks.parent_id = below.task_id
)
SELECT approvals.* FROM approvals JOIN work_items USING (task_id, item_id)
WHERE approvals.status = 'waiting'
  AND work_items.status NOT IN ('succeeded', 'failed', 'canceled', 'skipped')
  AND (:task_id IS NULL OR approvals.task_id IN (SELECT task_id FROM below))
ORDER BY requested_at, approvals.task_id, approvals.item_id, approvals.seq

-- name: approval.decide
-- A person has said something.
UPDATE approvals SET
    status = :status, decided_at = :now, decided_by = :decided_by, reason = :reason
WHERE task_id = :task_id AND item_id = :item_id AND seq = :seq AND status = 'waiting'

-- name: approval.use
-- Use an approval up.
UPDATE approvals SET status = 'used'
WHERE task_id = :task_id AND item_id = :item_id AND seq = :seq AND status = 'approved'
RETURNING 1

-- name: approval.expire
-- Nobody said anything in time.
UPDATE approvals SET status = 'expired'
WHERE task_id = :task_id AND item_id = :item_id AND seq = :seq AND status = 'waiting'
RETURNING 1

-- name: approval.withdraw
-- What an item asked under a name before doesn't count any more.
UPDATE approvals SET status = 'expired', reason = 'superseded'
WHERE task_id = :task_id AND item_id = :item_id AND name = :name AND seq < :seq
  AND status IN ('waiting', 'approved')

-- name: approval.wake
-- The item that waits for a decision may go on.
UPDATE work_items SET
    status = 'ready', wait = NULL, wake_at = NULL, error = NULL, claim_order = :now - priority * 60
WHERE task_id = :task_id AND item_id = :item_id AND status = 'waiting'
  AND :seq IN (SELECT value FROM json_each(work_items.wait, '$.approvals'))

-- name: approval.wake_if_decided
-- The decision may have come while the item was being parked.
UPDATE work_items SET
    status = 'ready', wait = NULL, wake_at = NULL, error = NULL, claim_order = :now - priority * 60
WHERE task_id = :task_id AND item_id = :item_id AND status = 'waiting'
  AND EXISTS (
      SELECT 1 FROM approvals
      WHERE approvals.task_id = :task_id AND approvals.item_id = :item_id
        AND approvals.status <> 'waiting'
        AND approvals.seq IN (SELECT value FROM json_each(:approvals))
  )
