-- name: checkpoint.put
-- Record a checkpoint.
INSERT INTO holdfast.checkpoints (
    task_id, item_id, number, type, state, pack, verdicts, status, journal_seq, anchor, generation,
    created_at, verified_at, seconds
) VALUES (
    :task_id, :item_id, :number, :type, :state, :pack, :verdicts, :status, :journal_seq, :anchor,
    :generation, :created_at, :verified_at, :seconds
)

-- name: checkpoint.list
-- All checkpoints of a task or an item, oldest first.
SELECT * FROM holdfast.checkpoints
WHERE task_id = :task_id AND (:item_id IS NULL OR item_id = :item_id)
ORDER BY created_at, item_id, number

-- name: checkpoint.newest
-- An item's checkpoints, newest first.
SELECT * FROM holdfast.checkpoints
WHERE task_id = :task_id AND item_id = :item_id AND number < :below
ORDER BY number DESC LIMIT :limit

-- name: checkpoint.get
-- One checkpoint.
SELECT * FROM holdfast.checkpoints
WHERE task_id = :task_id AND item_id = :item_id AND number = :number

-- name: checkpoint.set_status
-- Record what checking its evidence again gave.
UPDATE holdfast.checkpoints SET
    status = :status,
    verified_at = CASE WHEN :status = 'verified' THEN :now ELSE verified_at END
WHERE task_id = :task_id AND item_id = :item_id AND number = :number

-- name: claim.displace
-- A reopened item whose subject another item claims anew can't be restored unchanged.
UPDATE holdfast.work_items SET must_run = 1
WHERE task_id = :task_id AND status = 'pending' AND result_hash IS NOT NULL
  AND item_id <> :item_id
  AND item_id = (SELECT item_id FROM holdfast.claims WHERE task_id = :task_id AND subject = :subject)

-- name: claim.put
-- A claim supersedes the earlier one about the same subject.
INSERT INTO holdfast.claims (task_id, subject, item_id, number, evidence, verdict, checked_at)
VALUES (:task_id, :subject, :item_id, :number, :evidence, :verdict, :checked_at)
ON CONFLICT (task_id, subject) DO UPDATE SET
    item_id = excluded.item_id, number = excluded.number, evidence = excluded.evidence,
    verdict = excluded.verdict, checked_at = excluded.checked_at

-- name: claim.list
-- The newest claims of a task, or those made by some of its items.
SELECT subject, item_id, number, evidence, verdict, checked_at FROM holdfast.claims
WHERE task_id = :task_id
  AND (:items IS NULL OR item_id = ANY (ARRAY(SELECT json_array_elements_text(:items::json))))
ORDER BY item_id, subject

-- name: claim.withdraw
-- A claim that its item no longer makes.
DELETE FROM holdfast.claims
WHERE task_id = :task_id AND subject = :subject AND item_id = :item_id AND number = :number

-- name: claim.set_verdict
-- Store a new verdict of a claim that still stands.
UPDATE holdfast.claims SET verdict = :verdict, checked_at = :checked_at
WHERE task_id = :task_id AND subject = :subject AND item_id = :item_id AND number = :number

-- name: checkpoint.void
-- A reopened item must not resume from what its old inputs led to, nor from what proves nothing.
UPDATE holdfast.checkpoints SET status = 'void'
WHERE task_id = :task_id AND item_id = :item_id AND (status = 'recorded' OR :root = 0)
