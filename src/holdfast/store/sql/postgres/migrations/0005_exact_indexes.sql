-- Queries by queue and handler must not come to use this one, which has to be read past other handlers.
-- An older program sorts what it finds instead.

DROP INDEX holdfast.work_items_ready;

-- Nor an index that ends before the item: a task may have a hundred thousand of them ready.
DROP INDEX holdfast.work_items_by_status;
CREATE INDEX work_items_by_status ON holdfast.work_items (task_id, status, item_id);
