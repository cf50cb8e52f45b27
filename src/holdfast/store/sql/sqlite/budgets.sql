-- name: budget.put
-- Give a root task a budget.
INSERT INTO budgets (task_id, token_limit, nano_limit)
VALUES (:task_id, :token_limit, :nano_limit)

-- name: budget.get
-- What a root task may spend, has spent, and what of that is reserved.
SELECT
    task_id, token_limit, nano_limit, tokens, nanos,
    (SELECT coalesce(sum(tokens), 0) FROM reservations WHERE task_id = :task_id),
    (SELECT coalesce(sum(nanos), 0) FROM reservations WHERE task_id = :task_id)
FROM budgets WHERE task_id = :task_id

-- name: budget.lock
-- Nothing: who writes has the database to itself.
SELECT 1 WHERE :task_id IS NULL

-- name: budget.reserve
-- Spend beforehand what a call may take, if that much is left.
UPDATE budgets SET tokens = tokens + :tokens, nanos = nanos + :nanos
WHERE task_id = :task_id
  AND (token_limit IS NULL OR tokens + :tokens <= token_limit)
  AND (nano_limit IS NULL OR nanos + :nanos <= nano_limit)
RETURNING 1

-- name: budget.correct
-- Put what a call took in the place of what it had reserved.
UPDATE budgets SET tokens = tokens + :tokens, nanos = nanos + :nanos WHERE task_id = :task_id

-- name: budget.add
-- Raise a limit.
UPDATE budgets SET token_limit = token_limit + :tokens, nano_limit = nano_limit + :nanos
WHERE task_id = :task_id
  AND (token_limit IS NOT NULL OR :tokens = 0) AND (nano_limit IS NOT NULL OR :nanos = 0)
RETURNING 1

-- name: budget.waiters
-- The tasks in which something waits for its budget.
SELECT DISTINCT task_id FROM work_items
WHERE root_id = :task_id AND status = 'waiting' AND wait IS NOT NULL AND wait ->> '$.budget' IS NOT NULL
ORDER BY task_id

-- name: budget.wake
-- Let those of one task look again whether there is enough.
UPDATE work_items SET
    status = 'ready', wait = NULL, wake_at = NULL, error = NULL, claim_order = :now - priority * 60
WHERE task_id = :task_id AND status = 'waiting' AND wait ->> '$.budget' IS NOT NULL

-- name: budget.wake_if_enough
-- There may have become enough while the item was being parked.
UPDATE work_items SET
    status = 'ready', wait = NULL, wake_at = NULL, error = NULL, claim_order = :now - priority * 60
WHERE task_id = :task_id AND item_id = :item_id AND status = 'waiting'
  AND EXISTS (
      SELECT 1 FROM budgets
      WHERE budgets.task_id = :root_id
        AND (token_limit IS NULL OR tokens + :tokens <= token_limit)
        AND (nano_limit IS NULL OR nanos + :nanos <= nano_limit)
  )

-- name: reservation.put
-- Remember what a call has reserved.
INSERT INTO reservations (task_id, entry, tokens, nanos) VALUES (:task_id, :entry, :tokens, :nanos)

-- name: reservation.take
-- A call is over, or given up: take back what it had reserved.
DELETE FROM reservations WHERE task_id = :task_id AND entry = :entry RETURNING tokens, nanos
