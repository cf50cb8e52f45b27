-- name: queue.look
-- Whether a worker runs an item that is to have nothing beside it, and which queues are limited.
SELECT
    EXISTS (
        SELECT 1 FROM holdfast.work_items
        WHERE lease_owner = :worker_id AND status || '' = 'running' AND alone = 1
    ),
    (SELECT coalesce(json_agg(name), '[]')::text FROM holdfast.queues
     WHERE :roots IS NOT NULL OR name = ANY (ARRAY(SELECT json_array_elements_text(:queues::json))))

-- name: queue.hold
-- Limited queues, kept for this transaction; one that another claim has is left out.
SELECT name, running, rate, per, starts FROM holdfast.queues
WHERE name = ANY (ARRAY(SELECT json_array_elements_text(:queues::json)))
ORDER BY name
FOR NO KEY UPDATE SKIP LOCKED

-- name: queue.hold_of_item
-- The same for the queue of one item, waiting for it.
SELECT name, running, rate, per, starts FROM holdfast.queues
WHERE name = (SELECT queue FROM holdfast.work_items WHERE task_id = :task_id AND item_id = :item_id)
FOR NO KEY UPDATE

-- name: queue.room
-- How many items run in a queue, and how many of its oldest starts are too young for another.
SELECT
    (SELECT count(*) FROM holdfast.work_items WHERE queue = :queue AND status = 'running'),
    (SELECT count(*) FROM holdfast.queue_starts
     WHERE queue = :queue AND number > :after AND number <= :until
       AND abs(extract(epoch FROM clock_timestamp())::float8 - started_at) < :per)

-- name: queue.put_start
-- Remember when an item started.
INSERT INTO holdfast.queue_starts (queue, number, started_at)
VALUES (:queue, :number, extract(epoch FROM clock_timestamp())::float8)

-- name: queue.set_starts
-- Remember how many have started.
UPDATE holdfast.queues SET starts = :number WHERE name = :queue

-- name: queue.forget_starts
-- Forget starts that no later one has to wait for.
DELETE FROM holdfast.queue_starts WHERE queue = :queue AND number <= :until

-- name: queue.limit
-- Set what a queue allows.
INSERT INTO holdfast.queues (name, running, rate, per) VALUES (:queue, :running, :rate, :per)
ON CONFLICT (name) DO UPDATE SET
    running = excluded.running, rate = excluded.rate, per = excluded.per

-- name: queue.drop_unlimited
-- A queue whose limits are all lifted needs no row.
DELETE FROM holdfast.queues WHERE name = :queue AND running IS NULL AND rate IS NULL

-- name: queue.drop_starts
-- Without a rate nobody asks when items started.
DELETE FROM holdfast.queue_starts
WHERE queue = :queue
  AND NOT EXISTS (SELECT 1 FROM holdfast.queues WHERE name = :queue AND rate IS NOT NULL)

-- name: queue.list
-- Every queue that is limited or has something ready or running, and since when its oldest waits.
SELECT
    known.name, queues.running, queues.rate, queues.per,
    (SELECT count(*) FROM holdfast.work_items WHERE queue = known.name AND status = 'ready'),
    (SELECT count(*) FROM holdfast.work_items WHERE queue = known.name AND status = 'running'),
    (SELECT min(claim_order + priority * 60) FROM holdfast.work_items
     WHERE queue = known.name AND status = 'ready')
FROM (
    SELECT name FROM holdfast.queues
    UNION SELECT queue FROM holdfast.work_items WHERE status = 'ready'
    UNION SELECT queue FROM holdfast.work_items WHERE status = 'running'
) AS known
LEFT JOIN holdfast.queues ON queues.name = known.name
ORDER BY known.name
