-- name: task.put
-- Insert a task, unless there is one with its name and key.
INSERT INTO holdfast.tasks (
    task_id, root_id, parent_id, parent_item, name, key, input, status, queue, priority,
    workspace, workspace_id, require_evidence, budget, forked_from, created_at, updated_at,
    approvals
) VALUES (
    :task_id, :root_id, :parent_id, :parent_item, :name, :key, :input, :status, :queue, :priority,
    :workspace, :workspace_id, :require_evidence, :budget, :forked_from, :now, :now, :approvals
)
ON CONFLICT (name, key) WHERE key IS NOT NULL DO NOTHING
RETURNING *

-- name: task.get
-- One task.
SELECT * FROM holdfast.tasks WHERE task_id = :task_id

-- name: task.by_key
-- The task that `run` or a deduplicated `submit` means.
SELECT * FROM holdfast.tasks WHERE name = :name AND key = :key

-- name: task.find
-- Tasks by the start or the end of their id.
SELECT task_id FROM holdfast.tasks
WHERE left(task_id, length(:prefix)) = :prefix
   OR right(task_id, length(:prefix)) = :prefix
LIMIT 10

-- name: task.list
-- The newest tasks.
SELECT * FROM holdfast.tasks
WHERE :status IS NULL OR status = :status
ORDER BY task_id DESC LIMIT :limit

-- name: task.statuses
-- The statuses of some tasks.
SELECT task_id, status FROM holdfast.tasks WHERE task_id = ANY (ARRAY(SELECT json_array_elements_text(:tasks::json)))

-- name: task.of_ids
-- Some tasks.
SELECT * FROM holdfast.tasks WHERE task_id = ANY (ARRAY(SELECT json_array_elements_text(:tasks::json)))

-- name: task.after
-- The tasks that come next in the order of their ids.
SELECT task_id FROM holdfast.tasks WHERE task_id > :task_id ORDER BY task_id LIMIT :limit

-- name: task.children
-- The direct children of a task, oldest first.
SELECT * FROM holdfast.tasks WHERE parent_id = :task_id ORDER BY task_id

-- name: task.descendants_open
-- A task and everything below it that has not ended, ancestors first.
WITH RECURSIVE below (task_id, depth) AS (
    SELECT :task_id COLLATE "C", 0
    UNION ALL
    SELECT tasks.task_id, below.depth + 1
    FROM holdfast.tasks JOIN below ON tasks.parent_id = below.task_id
)
SELECT tasks.task_id FROM below JOIN holdfast.tasks USING (task_id)
WHERE tasks.status NOT IN ('succeeded', 'failed', 'canceled')
ORDER BY below.depth

-- name: task.census
-- What the status of a task follows from.
SELECT
    status,
    EXISTS (SELECT 1 FROM holdfast.work_items WHERE task_id = :task_id AND status IN ('ready', 'running')),
    EXISTS (SELECT 1 FROM holdfast.work_items WHERE task_id = :task_id AND status = 'waiting'
              AND (wake_at IS NOT NULL OR wait IS NULL
                   OR (wait::json ->> 'kind') NOT IN ('approval', 'budget'))
              -- What waits for nothing but children that are blocked is blocked itself.
              AND (wait IS NULL OR (wait::json ->> 'kind') <> 'child' OR EXISTS (
                  SELECT 1
                  FROM json_array_elements_text(work_items.wait::json -> 'children') AS named (id)
                  JOIN holdfast.tasks AS child ON child.task_id = named.id
                  WHERE child.status <> 'blocked'))),
    EXISTS (SELECT 1 FROM holdfast.work_items
            WHERE task_id = :task_id AND status IN ('in_doubt', 'quarantined', 'waiting')),
    EXISTS (SELECT 1 FROM holdfast.work_items WHERE task_id = :task_id AND status = 'canceled'),
    EXISTS (SELECT 1 FROM holdfast.work_items WHERE task_id = :task_id AND status = 'failed'),
    EXISTS (SELECT 1 FROM holdfast.work_items
            WHERE task_id = :task_id AND item_id = :plan AND status <> 'succeeded'),
    EXISTS (SELECT 1 FROM holdfast.work_items WHERE task_id = :task_id AND status = 'pending'),
    EXISTS (SELECT 1 FROM holdfast.claims WHERE task_id = :task_id)
FROM holdfast.tasks WHERE task_id = :task_id

-- name: task.first_error
-- Why a task failed: the error of its first failed item.
SELECT item_id || ': ' || coalesce(error, 'failed') FROM holdfast.work_items
WHERE task_id = :task_id AND status = 'failed' ORDER BY position LIMIT 1

-- name: task.set_status
-- Store a derived status.
UPDATE holdfast.tasks SET
    status = :status, updated_at = :now, finished_at = :finished, verifying = NULL,
    error = CASE WHEN :status = 'failed' THEN :error ELSE NULL END
WHERE task_id = :task_id
RETURNING parent_id, parent_item

-- name: task.verifying
-- All items have succeeded: name the worker that verifies everything once more.
UPDATE holdfast.tasks SET
    status = CASE WHEN status = 'succeeded' THEN status ELSE 'running' END,
    verifying = coalesce(:worker_id, verifying, ''), updated_at = :now
WHERE task_id = :task_id AND status <> 'succeeded'

-- name: task.not_verifying
-- Work came back: nobody verifies the whole.
UPDATE holdfast.tasks SET verifying = NULL WHERE task_id = :task_id

-- name: task.adopt_verification
-- Take over the last check of tasks whose checker is gone.
UPDATE holdfast.tasks SET verifying = :worker_id, updated_at = :now
WHERE status = 'running' AND verifying IS NOT NULL AND verifying <> :worker_id
  AND NOT EXISTS (
      SELECT 1 FROM holdfast.workers WHERE workers.worker_id = tasks.verifying AND workers.status <> 'gone'
  )
RETURNING task_id

-- name: task.may_finish
-- Whether every item of a task has succeeded, and this worker is to verify the whole.
SELECT 1 FROM holdfast.tasks
WHERE task_id = :task_id AND status = 'running' AND verifying = :worker_id
  AND NOT EXISTS (
      SELECT 1 FROM holdfast.work_items
      WHERE work_items.task_id = :task_id AND work_items.status <> 'succeeded'
  )
  AND NOT EXISTS (SELECT 1 FROM holdfast.workers WHERE workers.worker_id = :worker_id AND status = 'gone')

-- name: task.succeed
-- Call a task succeeded: what its own function returned is its result.
UPDATE holdfast.tasks SET
    status = 'succeeded', updated_at = :now, finished_at = :now, verifying = NULL, error = NULL,
    result = coalesce(
        (SELECT result FROM holdfast.work_items
         WHERE work_items.task_id = :task_id AND work_items.item_id = 'main'),
        :nothing
    )
WHERE task_id = :task_id
RETURNING parent_id, parent_item

-- name: task.reopen
-- Put an ended task back among the running; a canceled one stays canceled.
UPDATE holdfast.tasks SET status = 'running', finished_at = NULL, error = NULL, updated_at = :now
WHERE task_id = :task_id AND status IN ('succeeded', 'failed')
RETURNING task_id

-- name: task.wake_parent
-- A child ended: make the item that called it ready, if that waits for it.
UPDATE holdfast.work_items SET status = 'ready', wait = NULL, wake_at = NULL, claim_order = :now - priority * 60
WHERE task_id = :task_id AND item_id = :item_id AND status = 'waiting'
  AND :child_id IN (SELECT json_array_elements_text(work_items.wait::json -> 'children'))
RETURNING 1

-- name: task.prunable
-- Root tasks that ended, with all below them, before some time.
SELECT task_id FROM holdfast.tasks AS root
WHERE finished_at < :before::float8 AND root_id = task_id
  AND NOT EXISTS (
      SELECT 1 FROM holdfast.tasks AS below
      WHERE below.root_id = root.task_id
        AND (below.finished_at IS NULL OR below.finished_at >= :before::float8)
  )
LIMIT :limit

-- name: task.to_verify
-- Tasks whose items have all succeeded: a worker's own, and those that it may take over.
SELECT task_id, verifying = :worker_id FROM holdfast.tasks
WHERE verifying IS NOT NULL AND status = 'running'
  AND (
      verifying = :worker_id
      OR (:roots IS NULL OR root_id = ANY (ARRAY(SELECT json_array_elements_text(:roots::json))))
      AND NOT EXISTS (
          SELECT 1 FROM holdfast.workers
          WHERE workers.worker_id = tasks.verifying AND workers.status <> 'gone'
      )
  )

-- name: task.lock
-- Wait for whoever changes the items of a task, and keep others waiting: before the items' rows.
SELECT 1 FROM holdfast.tasks WHERE task_id = :task_id FOR NO KEY UPDATE
