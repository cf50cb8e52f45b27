-- A claim starts where an item is that the worker can run, however many stand before it that it can't.

CREATE INDEX work_items_ready_of_handler ON holdfast.work_items (queue, handler, claim_order)
WHERE status = 'ready';
