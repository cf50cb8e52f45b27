-- `status || ''` instead of `status`: the rows are named, by their key or their worker. Whoever plans the
-- statement must not look for them in an index of all that runs, or is ready, which may be thousands.

-- name: item.put
-- Insert a work item.
INSERT INTO holdfast.work_items (
    task_id, item_id, root_id, position, handler, input, status, queue, priority, claim_order,
    remaining, policy, max_crashes, owes, chain_head, created_at
) VALUES (
    :task_id, :item_id, :root_id, :position, :handler, :input, :status, :queue, :priority,
    :claim_order, :remaining, :policy, :max_crashes, :owes, :chain_head, :now
)

-- name: edge.put
-- One item comes after another.
INSERT INTO holdfast.work_item_edges (task_id, item_id, after_id) VALUES (:task_id, :item_id, :after_id)
ON CONFLICT DO NOTHING

-- name: edge.list
-- All edges of a task.
SELECT item_id, after_id FROM holdfast.work_item_edges WHERE task_id = :task_id

-- name: item.get
-- One work item.
SELECT * FROM holdfast.work_items WHERE task_id = :task_id AND item_id = :item_id

-- name: item.list
-- All items of a task, the planner first.
SELECT * FROM holdfast.work_items WHERE task_id = :task_id ORDER BY item_id <> :plan, position, item_id

-- name: item.predecessors
-- The items that one comes directly after.
SELECT work_items.* FROM holdfast.work_item_edges AS edge
JOIN holdfast.work_items ON work_items.task_id = edge.task_id AND work_items.item_id = edge.after_id
WHERE edge.task_id = :task_id AND edge.item_id = :item_id
ORDER BY work_items.position

-- name: item.dependents
-- Every item that comes, directly or not, after one of these.
WITH RECURSIVE below (item_id) AS (
    SELECT json_array_elements_text(:items::json) COLLATE "C"
    UNION
    SELECT edge.item_id FROM holdfast.work_item_edges AS edge
    JOIN below ON edge.after_id = below.item_id
    WHERE edge.task_id = :task_id
)
SELECT work_items.* FROM below
JOIN holdfast.work_items ON work_items.task_id = :task_id AND work_items.item_id = below.item_id
WHERE below.item_id <> ALL (ARRAY(SELECT json_array_elements_text(:items::json)))

-- name: item.candidates
-- The ready items of a queue that this worker can run, in the order they are due.
-- The first of each handler, out of which come the first of all: what this worker has no handler for
-- isn't looked at. A few more than wanted, since others may have locked some at this moment.
SELECT item.task_id, item.item_id, item.alone, item.claim_order, item.queue
FROM (
    SELECT first.* FROM json_array_elements_text(:handlers::json) AS wanted (handler)
    CROSS JOIN LATERAL (
        SELECT task_id, item_id, claim_order FROM holdfast.work_items
        WHERE status = 'ready' AND queue = :queue AND work_items.handler = wanted.handler
          AND (alone = 0 OR :idle::int8 = 1 OR claim_order + priority * 60 <= :in_line_since::float8)
        ORDER BY claim_order LIMIT :limit + 16
    ) AS first
    ORDER BY claim_order LIMIT :limit + 16
) AS first
JOIN holdfast.work_items AS item
  ON item.task_id = first.task_id AND item.item_id = first.item_id AND item.status || '' = 'ready'
ORDER BY first.claim_order LIMIT :limit
FOR NO KEY UPDATE OF item SKIP LOCKED

-- name: item.candidates_of_roots
-- The same among some tasks and their descendants, but for full queues.
SELECT item.task_id, item.item_id, item.alone, item.claim_order, item.queue
FROM (
    SELECT first.* FROM json_array_elements_text(:roots::json) AS wanted (root_id)
    CROSS JOIN LATERAL (
        SELECT task_id, item_id, claim_order FROM holdfast.work_items
        WHERE status = 'ready' AND work_items.root_id = wanted.root_id
          AND handler = ANY (ARRAY(SELECT json_array_elements_text(:handlers::json)))
          AND queue <> ALL (ARRAY(SELECT json_array_elements_text(:full::json)))
          AND (alone = 0 OR :idle::int8 = 1 OR claim_order + priority * 60 <= :in_line_since::float8)
        ORDER BY claim_order LIMIT :limit + 16
    ) AS first
    ORDER BY claim_order LIMIT :limit + 16
) AS first
JOIN holdfast.work_items AS item
  ON item.task_id = first.task_id AND item.item_id = first.item_id AND item.status || '' = 'ready'
ORDER BY first.claim_order LIMIT :limit
FOR NO KEY UPDATE OF item SKIP LOCKED

-- name: item.claim
-- Lease items, given as pairs of task and item: a new fencing token, one more attempt.
UPDATE holdfast.work_items AS item SET
    status = 'running', lease_owner = :worker_id, lease_token = lease_token + 1,
    attempts = attempts + 1, claimed_seq = seq, wait = NULL, wake_at = NULL,
    started_at = coalesce(started_at, :now)
FROM (
    SELECT value ->> 0 AS task_id, value ->> 1 AS item_id FROM json_array_elements(:items::json)
) AS wanted
WHERE item.task_id = wanted.task_id AND item.item_id = wanted.item_id AND item.status || '' = 'ready'
RETURNING item.*

-- name: item.after_claims
-- Which items, of those given as pairs, come directly after one that claims anything of the world.
SELECT DISTINCT edge.task_id, edge.item_id
FROM (
    SELECT value ->> 0 AS task_id, value ->> 1 AS item_id FROM json_array_elements(:items::json)
) AS given
JOIN holdfast.work_item_edges AS edge
  ON edge.task_id = given.task_id AND edge.item_id = given.item_id
JOIN holdfast.claims ON claims.task_id = edge.task_id AND claims.item_id = edge.after_id

-- name: item.fence
-- Lock the row, check the token, move the journal's head: the start of every write under a lease.
UPDATE holdfast.work_items SET seq = :seq, chain_head = :head
WHERE task_id = :task_id AND item_id = :item_id
  AND lease_token = :token AND status || '' = 'running' AND seq = :before
RETURNING cancel

-- name: item.hold
-- Lock the row and check the token: a fence for what adds nothing to the journal.
SELECT cancel FROM holdfast.work_items
WHERE task_id = :task_id AND item_id = :item_id
  AND lease_token = :token AND status || '' = 'running' AND seq = :before
FOR NO KEY UPDATE

-- name: item.lease
-- Under which token an item is leased, and whether it is.
SELECT lease_token, status FROM holdfast.work_items WHERE task_id = :task_id AND item_id = :item_id

-- name: item.extend_idle
-- Move the journal's head of an item nobody runs.
UPDATE holdfast.work_items SET seq = :seq, chain_head = :head
WHERE task_id = :task_id AND item_id = :item_id AND status <> 'running' AND seq = :before
RETURNING 1

-- name: item.wake_due
-- Make items ready whose timer has run out.
UPDATE holdfast.work_items SET status = 'ready', wait = NULL, wake_at = NULL, claim_order = :now - priority * 60
WHERE (task_id, item_id) IN (
    SELECT task_id, item_id FROM holdfast.work_items
    WHERE status = 'waiting' AND wake_at <= :now
    FOR NO KEY UPDATE SKIP LOCKED
)
RETURNING task_id

-- name: item.next_wake
-- When the next waiting item is due, and in how many seconds a limited queue has room for a ready one.
SELECT
    (SELECT min(wake_at) FROM holdfast.work_items WHERE status = 'waiting' AND wake_at IS NOT NULL),
    (SELECT min(coalesce(start.started_at + per - extract(epoch FROM clock_timestamp())::float8, 0))
     FROM holdfast.queues
     LEFT JOIN holdfast.queue_starts AS start
       ON start.queue = queues.name AND start.number = queues.starts + 1 - queues.rate
     WHERE (:roots IS NOT NULL OR name = ANY (ARRAY(SELECT json_array_elements_text(:queues::json))))
       AND (running IS NULL OR running > (
                SELECT count(*) FROM holdfast.work_items
                WHERE status = 'running' AND queue = queues.name))
       AND EXISTS (SELECT 1 FROM holdfast.work_items
                WHERE status = 'ready' AND queue = queues.name
                  AND (:roots IS NULL OR root_id = ANY (ARRAY(SELECT json_array_elements_text(:roots::json))))
                  AND handler = ANY (ARRAY(SELECT json_array_elements_text(:handlers::json)))
                OFFSET 0))  -- asked for each of those queues, not of all that is ready

-- name: item.finish
-- Store the result and give the lease back.
-- Says whether any item comes after this one; and whether the task has succeeded with it: all its
-- other items have, and it claims nothing of the world.
UPDATE holdfast.work_items SET
    status = 'succeeded', lease_owner = NULL, result = :result, result_hash = :result_hash,
    proven = :proven, error = NULL, must_run = 0, crashes = 0, alone = 0, finished_at = :now
WHERE task_id = :task_id AND item_id = :item_id
RETURNING
    EXISTS (
        SELECT 1 FROM holdfast.work_item_edges AS edge
        WHERE edge.task_id = :task_id AND edge.after_id = :item_id
    ),
    NOT EXISTS (
        SELECT 1 FROM holdfast.work_items AS other
        WHERE other.task_id = :task_id AND other.status < 'succeeded' AND other.item_id <> :item_id
    ) AND NOT EXISTS (
        SELECT 1 FROM holdfast.work_items AS other
        WHERE other.task_id = :task_id AND other.status > 'succeeded' AND other.item_id <> :item_id
    ) AND NOT EXISTS (SELECT 1 FROM holdfast.claims WHERE claims.task_id = :task_id)

-- name: item.count_down
-- One dependency less for the items after this one.
UPDATE holdfast.work_items SET
    remaining = remaining - 1,
    must_run = greatest(must_run, :changed)
WHERE task_id = :task_id AND status = 'pending'
  AND item_id IN (
      SELECT item_id FROM holdfast.work_item_edges WHERE task_id = :task_id AND after_id = :item_id
  )
RETURNING 1

-- name: item.restore_unchanged
-- A reopened dependent whose inputs came out as before counts as done again.
UPDATE holdfast.work_items SET status = 'succeeded', finished_at = :now
WHERE task_id = :task_id AND status = 'pending' AND remaining = 0
  AND result_hash IS NOT NULL AND must_run = 0
  AND item_id IN (
      SELECT item_id FROM holdfast.work_item_edges WHERE task_id = :task_id AND after_id = :item_id
  )
RETURNING item_id

-- name: item.make_ready
-- Dependents with nothing left to wait for may be claimed.
UPDATE holdfast.work_items SET status = 'ready', claim_order = :now - priority * 60
WHERE task_id = :task_id AND status = 'pending' AND remaining = 0
  AND item_id IN (
      SELECT item_id FROM holdfast.work_item_edges WHERE task_id = :task_id AND after_id = :item_id
  )

-- name: item.park
-- End an attempt that waits; it doesn't count as one. What was told to stop doesn't wait any more.
UPDATE holdfast.work_items SET
    status = CASE WHEN cancel = 1 THEN 'canceled' ELSE :status END, lease_owner = NULL,
    wait = CASE WHEN cancel = 1 THEN NULL ELSE :wait END,
    wake_at = CASE WHEN cancel = 1 THEN NULL ELSE :wake_at END,
    error = :error, attempts = attempts - 1, crashes = 0, alone = 0,
    claim_order = CASE WHEN :status = 'ready' THEN claim_order ELSE :now - priority * 60 END,
    finished_at = CASE WHEN cancel = 1 THEN :now END
WHERE task_id = :task_id AND item_id = :item_id
RETURNING status

-- name: item.wake_if_met
-- What the item waits for may have come while it was being parked.
UPDATE holdfast.work_items SET status = 'ready', wait = NULL, wake_at = NULL, claim_order = :now - priority * 60
WHERE task_id = :task_id AND item_id = :item_id AND status = 'waiting'
  AND (
      EXISTS (
          SELECT 1 FROM holdfast.signals
          WHERE signals.task_id = :task_id AND taken_by IS NULL
            AND name = ANY (ARRAY(SELECT json_array_elements_text(:signals::json)))
      )
      OR EXISTS (
          SELECT 1 FROM holdfast.tasks
          WHERE tasks.task_id = ANY (ARRAY(SELECT json_array_elements_text(:children::json)))
            AND tasks.status IN ('succeeded', 'failed', 'canceled')
      )
  )

-- name: item.fail
-- End an attempt that failed. What was told to stop isn't tried again.
UPDATE holdfast.work_items SET
    status = CASE WHEN cancel = 1 AND :status = 'waiting' THEN 'canceled' ELSE :status END,
    lease_owner = NULL,
    wait = CASE WHEN cancel = 1 THEN NULL ELSE :wait END,
    wake_at = CASE WHEN cancel = 1 THEN NULL ELSE :wake_at END,
    error = :error, failures = failures + 1, crashes = 0, alone = 0,
    finished_at = CASE WHEN cancel = 1 OR :status = 'failed' THEN :now END
WHERE task_id = :task_id AND item_id = :item_id

-- name: item.skip_dependents
-- What comes after a failed item is skipped.
WITH RECURSIVE below (item_id) AS (
    SELECT :item_id COLLATE "C"
    UNION
    SELECT edge.item_id FROM holdfast.work_item_edges AS edge
    JOIN below ON edge.after_id = below.item_id
    WHERE edge.task_id = :task_id
)
UPDATE holdfast.work_items SET status = 'skipped', finished_at = :now
WHERE task_id = :task_id AND status = 'pending' AND item_id IN (SELECT item_id FROM below)

-- name: item.end_canceled
-- End an attempt that was told to stop.
UPDATE holdfast.work_items SET
    status = 'canceled', lease_owner = NULL, wait = NULL, wake_at = NULL, finished_at = :now
WHERE task_id = :task_id AND item_id = :item_id

-- name: item.end_planning
-- The plan is committed: the planner's item has succeeded.
UPDATE holdfast.work_items SET
    status = 'succeeded', lease_owner = NULL, proven = 0, error = NULL, crashes = 0, alone = 0,
    finished_at = :now
WHERE task_id = :task_id AND item_id = :item_id

-- name: item.recount_main
-- The task's own function comes after its plan.
UPDATE holdfast.work_items SET
    position = :position,
    remaining = (
        SELECT count(*) FROM holdfast.work_item_edges AS edge
        JOIN holdfast.work_items AS before
          ON before.task_id = edge.task_id AND before.item_id = edge.after_id
        WHERE edge.task_id = :task_id AND edge.item_id = 'main'
          AND before.status <> 'succeeded' AND before.item_id <> 'plan'
    ),
    status = CASE
        WHEN EXISTS (
            SELECT 1 FROM holdfast.work_item_edges
            WHERE task_id = :task_id AND item_id = 'main' AND after_id <> 'plan'
        ) THEN 'pending' ELSE 'ready' END,
    claim_order = :now - priority * 60
WHERE task_id = :task_id AND item_id = 'main' AND status = 'pending'

-- name: item.cancel_idle
-- Cancel what nobody runs.
UPDATE holdfast.work_items SET
    status = 'canceled', error = :reason, finished_at = :now, wait = NULL, wake_at = NULL
WHERE task_id = :task_id
  AND status IN ('pending', 'ready', 'waiting', 'in_doubt', 'quarantined')

-- name: item.cancel_running
-- Tell what runs to stop.
UPDATE holdfast.work_items SET cancel = 1 WHERE task_id = :task_id AND status || '' = 'running'

-- name: item.held_by_worker
-- Every lease of a worker, and whether its item was told to stop.
SELECT task_id, item_id, lease_token, cancel FROM holdfast.work_items
WHERE status || '' = 'running' AND lease_owner = :worker_id

-- name: item.running
-- Every leased item.
SELECT lease_owner, task_id, item_id, handler, queue, attempts FROM holdfast.work_items
WHERE status = 'running' ORDER BY task_id, item_id

-- name: item.revive_failed
-- A person wants another try; what comes before it may have been reopened meanwhile.
UPDATE holdfast.work_items SET
    status = 'pending', failures = 0, crashes = 0, alone = 0, generation = 0, error = NULL,
    wait = NULL, wake_at = NULL, finished_at = NULL, cancel = 0
WHERE task_id = :task_id AND status IN ('failed', 'quarantined')
RETURNING item_id

-- name: item.revive_skipped
-- What was skipped waits again.
UPDATE holdfast.work_items SET status = 'pending', finished_at = NULL
WHERE task_id = :task_id AND status = 'skipped'

-- name: item.recount
-- Count afresh how many dependencies each pending item has left.
UPDATE holdfast.work_items SET remaining = (
    SELECT count(*) FROM holdfast.work_item_edges AS edge
    JOIN holdfast.work_items AS before ON before.task_id = edge.task_id AND before.item_id = edge.after_id
    WHERE edge.task_id = work_items.task_id AND edge.item_id = work_items.item_id
      AND before.status <> 'succeeded'
)
WHERE task_id = :task_id AND status = 'pending'

-- name: item.ready_if_free
-- Pending items with nothing left to wait for may be claimed.
UPDATE holdfast.work_items SET status = 'ready', claim_order = :now - priority * 60
WHERE task_id = :task_id AND status = 'pending' AND remaining = 0

-- name: item.is_unchanged
-- Whether an item is as it was when a decision about it was made.
SELECT 1 FROM holdfast.work_items
WHERE task_id = :task_id AND item_id = :item_id
  AND seq = :seq AND status = :status AND lease_token = :token
FOR NO KEY UPDATE

-- name: item.reopen
-- Take done or running work back; its lease, if any, is revoked.
UPDATE holdfast.work_items SET
    status = :status, lease_owner = NULL, wait = NULL, wake_at = NULL, finished_at = NULL,
    generation = generation + :root, must_run = greatest(must_run, :must_run),
    seq = :seq, chain_head = :head, error = :error,
    attempts = CASE WHEN status = 'running' THEN attempts - 1 ELSE attempts END
WHERE task_id = :task_id AND item_id = :item_id

-- name: item.end_pause
-- Don't wait any longer for the next attempt.
UPDATE holdfast.work_items SET status = 'ready', wait = NULL, wake_at = NULL, claim_order = :now - priority * 60
WHERE task_id = :task_id AND item_id = :item_id AND status = 'waiting'
  AND (wait::json ->> 'kind') = 'retry'

-- name: item.leave_doubt
-- Let an item go on once none of its entries is in doubt.
UPDATE holdfast.work_items SET status = 'pending', wait = NULL, wake_at = NULL, error = NULL
WHERE task_id = :task_id AND item_id = :item_id
  AND (
      status = 'in_doubt'
      OR (status = 'waiting' AND json_array_length(coalesce(wait::json -> 'doubts', '[]')) > 0)
  )
  AND NOT EXISTS (
      SELECT 1 FROM holdfast.journal AS doubt
      WHERE doubt.task_id = :task_id AND doubt.item_id = :item_id AND doubt.status = 'doubt'
        AND NOT EXISTS (
            SELECT 1 FROM holdfast.journal AS settled
            WHERE settled.task_id = :task_id AND settled.item_id = :item_id
              AND settled.ref = coalesce(doubt.ref, doubt.seq) AND settled.seq > doubt.seq
        )
  )

-- name: item.count_leased
-- How many items a worker holds.
SELECT count(*) FROM holdfast.work_items WHERE lease_owner = :worker_id AND status || '' = 'running'

-- name: item.take_back
-- Take back everything a dead worker held; what made no progress has crashed.
UPDATE holdfast.work_items SET
    status = CASE
        WHEN cancel = 1 THEN 'canceled'
        WHEN seq > claimed_seq THEN 'ready'
        WHEN :shared = 1 AND alone = 0 THEN 'ready'
        WHEN crashes + 1 >= max_crashes THEN 'quarantined'
        ELSE 'waiting'
    END,
    error = CASE
        WHEN cancel = 1 OR seq > claimed_seq OR (:shared = 1 AND alone = 0) THEN error
        WHEN crashes + 1 >= max_crashes
        THEN 'crashed its process ' || (crashes + 1) || ' times without recording anything new'
        ELSE error
    END,
    wait = CASE
        WHEN cancel = 1 OR seq > claimed_seq OR (:shared = 1 AND alone = 0)
          OR crashes + 1 >= max_crashes THEN NULL
        ELSE '{"kind":"retry"}'
    END,
    wake_at = CASE
        WHEN cancel = 1 OR seq > claimed_seq OR (:shared = 1 AND alone = 0)
          OR crashes + 1 >= max_crashes THEN NULL
        ELSE :now + least(:pause_max, :pause * power(2, least(crashes, 20)))
    END,
    claim_order = :now - priority * :per_priority,
    crashes = CASE
        WHEN seq > claimed_seq THEN 0
        WHEN :shared = 1 AND alone = 0 THEN crashes
        ELSE crashes + 1
    END,
    alone = (seq = claimed_seq)::int,
    finished_at = CASE WHEN cancel = 1 THEN :now END,
    lease_owner = NULL
WHERE lease_owner = :worker_id AND status || '' = 'running'
RETURNING task_id, item_id, status, crashes

-- name: item.prunable
-- Unfinished items whose handlers restore, with journal before a later checkpoint; most first.
SELECT task_id, item_id FROM holdfast.work_items
WHERE restores = 1 AND status IN ('ready', 'running', 'waiting', 'in_doubt')
  AND seq > pruned_seq + 100
  AND EXISTS (
      SELECT 1 FROM holdfast.checkpoints
      WHERE checkpoints.task_id = work_items.task_id AND checkpoints.item_id = work_items.item_id
        AND journal_seq > pruned_seq
  )
ORDER BY seq - pruned_seq DESC LIMIT :limit

-- name: item.set_restores
-- The handler calls `restore`: what is before its checkpoint may be pruned.
UPDATE holdfast.work_items SET restores = 1 WHERE task_id = :task_id AND item_id = :item_id

-- name: item.set_pruned
-- Remember how far the journal was pruned.
UPDATE holdfast.work_items SET pruned_seq = :until
WHERE task_id = :task_id AND item_id = :item_id

-- name: item.abandon
-- Give a lease back, wherever the journal stands or only where it is said to.
UPDATE holdfast.work_items SET
    status = CASE
        WHEN cancel = 1 THEN 'canceled' WHEN :wake_at IS NULL THEN 'ready' ELSE 'waiting' END,
    wait = CASE WHEN cancel = 0 AND :wake_at IS NOT NULL THEN '{"kind":"retry"}' END,
    wake_at = CASE WHEN cancel = 0 THEN :wake_at END,
    lease_owner = NULL, attempts = attempts - 1, finished_at = CASE WHEN cancel = 1 THEN :now END
WHERE task_id = :task_id AND item_id = :item_id AND lease_token = :token AND status || '' = 'running'
  AND (:seq IS NULL OR seq = :seq)
RETURNING status
