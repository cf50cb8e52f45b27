-- name: journal.put
-- Append one entry.
INSERT INTO holdfast.journal (
    task_id, item_id, seq, kind, name, scope, identity, status, effect, ref, keyed, attempt, at,
    micros, request, outcome, usage, chain
) VALUES (
    :task_id, :item_id, :seq, :kind, :name, :scope, :identity, :status, :effect, :ref, :keyed,
    :attempt, :at, :micros, :request, :outcome, :usage, :chain
)

-- name: journal.landed
-- Whether an append was committed: no other entry has its place in the chain.
SELECT 1 FROM holdfast.journal
WHERE task_id = :task_id AND item_id = :item_id AND seq = :seq AND chain = :chain

-- name: journal.read
-- An item's entries after some point.
SELECT seq, kind, name, scope, identity, status, effect, ref, keyed, attempt, at, micros, request,
       outcome, usage, chain
FROM holdfast.journal WHERE task_id = :task_id AND item_id = :item_id AND seq > :after ORDER BY seq

-- name: blob.put
-- Keep a large payload of a task.
INSERT INTO holdfast.blobs (task_id, digest, data)
VALUES (:task_id, :digest, :data)
-- Locks the row that is there already, so that it isn't pruned before this refers to it.
ON CONFLICT (task_id, digest) DO UPDATE SET digest = excluded.digest

-- name: blob.get
-- One large payload.
SELECT data FROM holdfast.blobs WHERE task_id = :task_id AND digest = :digest

-- name: event.put
-- Add a line to a timeline.
INSERT INTO holdfast.events (task_id, event_id, item_id, type, at, data)
VALUES (:task_id, :event_id, :item_id, :type, :at, :data::text)
ON CONFLICT DO NOTHING

-- name: event.list
-- A timeline from some point on.
SELECT event_id, item_id, type, at, data FROM holdfast.events
WHERE task_id = :task_id AND event_id > :after::text ORDER BY event_id

-- name: signal.put
-- Put a signal into the mailbox; the same one twice is one.
INSERT INTO holdfast.signals (task_id, signal_id, name, payload, sent_at)
VALUES (:task_id, :signal_id, :name, :payload, :now)
ON CONFLICT DO NOTHING

-- name: signal.peek
-- The oldest signal of a name that nobody took.
SELECT signal_id, payload FROM holdfast.signals
WHERE task_id = :task_id AND name = :name AND taken_by IS NULL ORDER BY signal_id LIMIT 1

-- name: signal.take
-- Take a signal out of the mailbox, unless somebody else did.
UPDATE holdfast.signals SET taken_by = :taken_by
WHERE task_id = :task_id AND signal_id = :signal_id AND taken_by IS NULL
RETURNING 1

-- name: signal.wake
-- Make items ready that wait for a signal of that name.
UPDATE holdfast.work_items SET
    status = 'ready', wait = NULL, wake_at = NULL, claim_order = :now - priority * 60
WHERE task_id = :task_id AND status = 'waiting'
  AND :name IN (SELECT json_array_elements_text(work_items.wait::json -> 'signals'))
