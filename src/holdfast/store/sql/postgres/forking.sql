-- name: fork.task
-- The new task: the old one's goal and input, no key, and no budget but one of its own.
INSERT INTO holdfast.tasks (
    task_id, root_id, parent_id, parent_item, name, key, input, status, queue, priority,
    workspace, workspace_id, require_evidence, budget, forked_from, created_at, updated_at,
    approvals
)
SELECT
    :task_id, :task_id, NULL, NULL, name, NULL, input, 'running', queue, priority,
    workspace, workspace_id, require_evidence, :budget, :checkpoint_id, :now, :now, approvals
FROM holdfast.tasks WHERE task_id = :source

-- name: fork.items
-- Its items: done before the checkpoint, everything else to be done.
INSERT INTO holdfast.work_items (
    task_id, item_id, root_id, position, handler, input, status, queue, priority, claim_order,
    remaining, policy, max_crashes, owes, lease_token, seq, chain_head, pruned_seq, restores,
    result, result_hash, proven, created_at, started_at, finished_at
)
SELECT
    :task_id, item_id, :task_id, position, handler, input,
    CASE WHEN before THEN 'succeeded' ELSE 'pending' END,
    queue, priority, :now - priority * 60, 0, policy, max_crashes, owes, lease_token,
    CASE WHEN before THEN seq WHEN item_id = :item_id THEN (
        SELECT journal_seq FROM holdfast.checkpoints
        WHERE task_id = :source AND checkpoints.item_id = :item_id AND number = :number
    ) ELSE 0 END,
    CASE WHEN before THEN chain_head WHEN item_id = :item_id THEN (
        SELECT anchor FROM holdfast.checkpoints
        WHERE task_id = :source AND checkpoints.item_id = :item_id AND number = :number
    ) ELSE decode(repeat('00', 32), 'hex') END,
    CASE WHEN before OR item_id = :item_id THEN pruned_seq ELSE 0 END,
    CASE WHEN before OR item_id = :item_id THEN restores ELSE 0 END,
    CASE WHEN before THEN result END,
    CASE WHEN before THEN result_hash END,
    CASE WHEN before THEN proven ELSE 0 END,
    :now, CASE WHEN before THEN started_at END, CASE WHEN before THEN finished_at END
FROM (
    SELECT work_items.*, item_id = ANY (ARRAY(SELECT json_array_elements_text(:before::json))) AS before
    FROM holdfast.work_items WHERE task_id = :source
) AS copied

-- name: fork.edges
-- Its plan.
INSERT INTO holdfast.work_item_edges (task_id, item_id, after_id)
SELECT :task_id, item_id, after_id FROM holdfast.work_item_edges WHERE task_id = :source

-- name: fork.journal
-- What was recorded up to the checkpoint.
INSERT INTO holdfast.journal (
    task_id, item_id, seq, kind, name, scope, identity, status, effect, ref, keyed, attempt, at,
    micros, request, outcome, usage, chain
)
SELECT
    :task_id, item_id, seq, kind, name, scope, identity, status, effect, ref, keyed, attempt, at,
    micros, request, outcome, usage, chain
FROM holdfast.journal
WHERE task_id = :source AND (
    item_id = ANY (ARRAY(SELECT json_array_elements_text(:before::json)))
    OR item_id = :item_id AND seq <= (
        SELECT journal_seq FROM holdfast.checkpoints
        WHERE task_id = :source AND checkpoints.item_id = :item_id AND number = :number
    )
)

-- name: fork.checkpoints
-- The checkpoints up to that one.
INSERT INTO holdfast.checkpoints (
    task_id, item_id, number, type, state, pack, verdicts, status, journal_seq, anchor, generation,
    created_at, verified_at, seconds
)
SELECT
    :task_id, item_id, number, type, state, pack, verdicts, status, journal_seq, anchor, 0,
    created_at, verified_at, seconds
FROM holdfast.checkpoints
WHERE task_id = :source AND (
    item_id = ANY (ARRAY(SELECT json_array_elements_text(:before::json))) OR item_id = :item_id AND number <= :number
)

-- name: fork.claims
-- The newest claims of what is done.
INSERT INTO holdfast.claims (task_id, subject, item_id, number, evidence, verdict, checked_at)
SELECT :task_id, subject, item_id, number, evidence, verdict, checked_at
FROM holdfast.claims
WHERE task_id = :source AND (
    item_id = ANY (ARRAY(SELECT json_array_elements_text(:before::json))) OR item_id = :item_id AND number <= :number
)

-- name: fork.blobs
-- Every large payload: which of them are needed is found out when pruning.
INSERT INTO holdfast.blobs (task_id, digest, data)
SELECT :task_id, digest, data FROM holdfast.blobs WHERE task_id = :source

-- name: fork.state
-- The state a person chose instead.
UPDATE holdfast.checkpoints SET state = :state
WHERE task_id = :task_id AND item_id = :item_id AND number = :number
