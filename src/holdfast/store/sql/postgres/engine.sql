-- name: engine.lock_item
-- Wait for what is under way on an item, and write.
UPDATE holdfast.work_items SET seq = seq
WHERE task_id = :task_id AND item_id = :item_id
RETURNING 1

-- name: engine.lock_writer
-- Wait for what a writer has under way, and write.
INSERT INTO holdfast.writers (writer_id, batch, marked_at) VALUES (:writer_id, 0, 0)
ON CONFLICT (writer_id) DO UPDATE SET batch = writers.batch
RETURNING 1

-- name: engine.append_one
-- Fence an item and append an entry to its journal, if its lease is held. It answers how many.
WITH fenced AS (
    UPDATE holdfast.work_items SET seq = :seq, chain_head = :chain
    WHERE task_id = :task_id AND item_id = :item_id
      AND lease_token = :token AND status || '' = 'running' AND seq = :before
    RETURNING 1
)
INSERT INTO holdfast.journal (
    task_id, item_id, seq, kind, name, scope, identity, status, effect, ref, keyed, attempt, at,
    micros, request, outcome, usage, chain
)
SELECT
    :task_id, :item_id, :seq, :kind, :name, :scope, :identity, :status, :effect, :ref, :keyed,
    :attempt, :at, :micros, :request, :outcome, :usage, :chain
FROM fenced

-- name: engine.end_backend
-- End a connection that was lost; gives a row as long as the server still has it.
-- Not one that waits for a standby: its commit is done, and ending it would show it to others before
-- it is safe. Its rows stay locked until then.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = :pid AND backend_start::text = :started AND wait_event IS DISTINCT FROM 'SyncRep'

-- name: engine.append
-- Fence many items and append to their journals, as `item.fence` and `journal.put` do one by one.
WITH wanted AS (
    SELECT * FROM unnest(
        :task_ids::text[], :item_ids::text[], :tokens::int8[], :befores::int8[], :afters::int8[],
        :heads::bytea[]
    ) AS given (task_id, item_id, token, before, after, head)
), fenced AS (
    UPDATE holdfast.work_items AS item SET seq = wanted.after, chain_head = wanted.head
    FROM wanted
    WHERE item.task_id = wanted.task_id AND item.item_id = wanted.item_id
      AND item.lease_token = wanted.token AND item.status || '' = 'running' AND item.seq = wanted.before
    RETURNING item.task_id, item.item_id
), added AS (
    INSERT INTO holdfast.journal (
        task_id, item_id, seq, kind, name, scope, identity, status, effect, ref, keyed, attempt,
        at, micros, request, outcome, usage, chain
    )
    SELECT entry.* FROM unnest(
        :task_id::text[], :item_id::text[], :seq::int8[], :kind::text[], :name::text[],
        :scope::text[], :identity::bytea[], :status::text[], :effect::text[], :ref::int8[],
        :keyed::int8[], :attempt::int8[], :at::float8[], :micros::int8[], :request::bytea[],
        :outcome::bytea[], :usage::bytea[], :chain::bytea[]
    ) AS entry (
        task_id, item_id, seq, kind, name, scope, identity, status, effect, ref, keyed, attempt,
        at, micros, request, outcome, usage, chain
    )
    JOIN fenced ON fenced.task_id = entry.task_id AND fenced.item_id = entry.item_id
)
SELECT task_id, item_id FROM fenced
